#!/usr/bin/env bash
# steps.sh MODELS OUT STEP...: runs benchmark steps one after another on the GPUs that CUDA_VISIBLE_DEVICES names.
# A step that fails or takes too long leaves its log OUT/STEP.txt and what its JSON holds so far; the next one goes on.
set -u
models=$1 out=$2
shift 2
mkdir -p "$out"
here=benchmarks/serving

settle() { # wait for the memory of a server that was stopped (SETTLED: MiB that something else may hold)
    for _ in $(seq 20); do
        used=$(nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits -i "${CUDA_VISIBLE_DEVICES:-0}" 2> /dev/null | sort -n | tail -1)
        [ "${used:-0}" -lt "${SETTLED:-3000}" ] && return
        sleep 1
    done
}

for step in "$@"; do
    speed="$here/speed.py --model $models/full --out $out"
    variant="$here/variants.py --model $models/full --out $out"
    case $step in
        tiny) limit=200 command="$here/tiny_tokens.py --out $out --dtypes bfloat16" ;;
        tiny-float32) limit=150 command="$here/tiny_tokens.py --out $out --dtypes float32 --name tiny_tokens-float32" ;;
        tiny-tp2) limit=200 command="$here/tiny_tokens.py --out $out --name tiny_tokens-tp2 --flags=--tp-size=2" ;;
        index) limit=120 command="$here/index_agreement.py --model $models/cut --out $out" ;;
        agreement) limit=330 command="$here/agreement.py --model $models/cut --out $out" ;;
        agreement-smoke) limit=200 command="$here/agreement.py --model $models/cut --out $out/smoke --modes exact --lengths 1024 3072" ;;
        speed-keye) limit=500 command="$speed --server keye --seconds 400" ;;
        speed-keye-fp8) limit=300 command="$speed --server keye --indexer fp8 --name keye-fp8-index --lengths 32768 131072 --seconds 220" ;;
        speed-flashinfer) limit=500 command="$here/speed.py --model $models/dense --out $out --server flashinfer --seconds 420" ;;
        speed-triton) limit=260 command="$here/speed.py --model $models/dense --out $out --server triton --lengths 8192 32768 65536 --seconds 200" ;;
        hour) limit=450 command="$here/hour.py --model $models/full --out $out/hour" ;;
        tp1) limit=220 command="$variant --name tp1" ;;
        tp2) limit=260 command="$variant --name tp2 --flags=--tp-size=2 --against tp1" ;;
        fp8) limit=260 command="$variant --name fp8 --flags=--quantization=fp8 --against tp1" ;;
        *) echo "unknown step $step" >&2; exit 2 ;;
    esac
    echo "== $step: at most $limit s"
    began=$SECONDS
    # shellcheck disable=SC2086 - the command is words
    timeout -k 25 "$limit" python3 $command > "$out/$step.txt" 2>&1
    echo "== $step ended with $? after $((SECONDS - began)) s"
    grep -v 'starting ' "$out/$step.txt" | tail -${LINES_EACH:-14} | cut -c1-220
    settle
done
