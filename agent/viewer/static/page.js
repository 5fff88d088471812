// What every page does: the theme that was chosen, keys, the list that follows runs as they go on.
"use strict";
(() => {
  const root = document.documentElement;
  const kept = (name, value) => {
    try {
      if (value !== undefined) localStorage.setItem(name, value);
      return localStorage.getItem(name);
    } catch { return null; }  // a page that was opened as a file may keep nothing
  };
  const theme = kept("theme");
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;

  const turnTheme = () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    kept("theme", root.dataset.theme);
  };
  const acts = {
    theme: turnTheme,
    help: () => document.getElementById("help").showModal(),
  };
  const typing = (at) => at.matches("input:not([type=checkbox], [type=range]), select, textarea, [contenteditable]");

  window.keyeloop = { acts, keys: {}, typing };
  keyeloop.keys["t"] = acts.theme;
  keyeloop.keys["?"] = acts.help;
  keyeloop.keys["/"] = () => document.getElementById("search")?.focus();

  document.addEventListener("click", (event) => {
    const at = event.target.closest?.("[data-act]");
    if (!at || at.matches("form") || !acts[at.dataset.act]) return;
    if (acts[at.dataset.act](at) !== false) event.preventDefault();
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (document.querySelector("dialog[open]")) return;
    if (event.key !== "Escape" && typing(event.target)) return;
    const act = keyeloop.keys[event.key];
    if (act && act(event) !== false) event.preventDefault();
  });

  const startList = () => {
    const rows = document.getElementById("rows");
    if (!rows) return;
    const chosen = () => [...rows.querySelectorAll("input[name=run]:checked")].map((box) => box.value);
    const settle = () => {
      const button = rows.querySelector(".compare");
      if (button) button.disabled = chosen().length !== 2;
    };
    rows.addEventListener("change", settle);
    settle();
    const links = () => [...rows.querySelectorAll("a.asked")];
    const move = (by) => {
      const all = links(), at = all.indexOf(document.activeElement);
      all[Math.min(all.length - 1, Math.max(0, at + by))]?.focus();
    };
    keyeloop.keys["j"] = () => move(1);
    keyeloop.keys["k"] = () => move(-1);
    for (const field of document.querySelectorAll(".filters select, .filters input[type=checkbox]"))
      field.addEventListener("change", () => field.form.requestSubmit());
    let last = null;
    const refresh = async () => {
      if (document.hidden || rows.contains(document.activeElement) || chosen().length) return;
      const answer = await fetch(rows.dataset.refresh).catch(() => null);
      if (!answer?.ok) return;
      const text = await answer.text();
      if (last !== null && text !== last) { rows.innerHTML = text; settle(); }
      last = text;
    };
    setInterval(refresh, 2000);
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", startList); else startList();
})();
