# Source this in the repository on a machine where nothing can be installed: SITE is the folder with SGLang's packages
# (a trimmed bundle, unpacked) and whatever else is missing; the plugin's metadata is written to $SITE-plugin.
: "${SITE:?name the folder with SGLang in SITE}"
export PYTHONPATH="$SITE-plugin:$SITE:$PWD/src:$PWD" SGLANG_SKIP_SGL_KERNEL_VERSION_CHECK=1 HF_HUB_OFFLINE=1
export PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
python3 benchmarks/serving/plugin_site.py "$SITE-plugin" || return 1
