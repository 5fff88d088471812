// A run's page: the source beside the steps, the strip, steps that come when they are scrolled to, the live tail.
"use strict";
(() => {
  const body = document.body;
  if (body.dataset.page !== "run") return;
  const { acts, keys } = window.keyeloop;
  const $ = (selector, from = document) => from.querySelector(selector);
  const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];
  const base = body.dataset.base, calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const stage = $("#stage"), screen = $(".screen", stage), video = $("video", stage), still = $(".source", stage);
  const box = $(".box", stage), told = $(".told", stage), seen = $(".seen", stage);
  const sources = JSON.parse($("#sources").textContent);
  const PLAY_S = 3, FADE_S = 1.2;
  let shown = null, stopAt = null;

  // Pictures of a page that was exported are in it once; wherever else they are shown, they are taken from there.
  const pictureUrl = (sha) => base ? body.dataset.media + sha : $(`img[data-picture="${sha}"]`)?.src ?? "";
  const fillPictures = (from) => { for (const at of $$("img[data-same]", from)) at.src = pictureUrl(at.dataset.same); };
  fillPictures(document);

  const clock = (s) => {
    const whole = Math.floor(s), pad = (n) => String(n).padStart(2, "0"), rest = (s - whole).toFixed(3).slice(1).replace(/\.?0+$/, "");
    const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
    return (hours ? `${hours}:${pad(minutes)}` : `${minutes}`) + `:${pad(whole % 60)}${rest}`;
  };

  // ---- the stage
  const drawBox = (at, source) => {
    const sides = (at.dataset.box ?? "").split(",").map(Number);
    const whole = sides.length === 4 && sides[2] - sides[0] >= source.width * 0.999 && sides[3] - sides[1] >= source.height * 0.999;
    box.toggleAttribute("hidden", sides.length !== 4 || screen.dataset.state === "picture");
    if (sides.length !== 4) return;
    const inset = whole ? source.width * 0.004 : 0;
    box.setAttribute("viewBox", `0 0 ${source.width} ${source.height}`);
    for (const rect of $$("rect", box)) {
      rect.setAttribute("x", sides[0] + inset); rect.setAttribute("y", sides[1] + inset);
      rect.setAttribute("width", sides[2] - sides[0] - 2 * inset); rect.setAttribute("height", sides[3] - sides[1] - 2 * inset);
    }
    $(".shade", box).toggleAttribute("hidden", whole);
    box.classList.remove("past");
  };
  const showRecorded = () => {  // no source that can be played: what the model was given stands in its place
    const sha = shown?.dataset.sha ?? $(`.mark[data-handle="${shown?.dataset.handle}"][data-sha]`)?.dataset.sha;
    video.hidden = controls.hidden = true;
    if (!sha) { screen.dataset.state = "empty"; still.hidden = true; box.toggleAttribute("hidden", true); return; }
    screen.dataset.state = "picture";
    still.hidden = false; still.src = pictureUrl(sha);
    seen.hidden = true;
    const of = sources[shown.dataset.source], from = $(`.mark[data-sha="${sha}"]`) ?? shown;
    const sides = (from.dataset.box ?? "").split(",").map(Number), cut = (shown.dataset.box ?? "").split(",").map(Number);
    box.toggleAttribute("hidden", true);
    if (of && sides.length === 4 && cut.length === 4 && sides.join() !== cut.join()) {
      screen.dataset.state = "boxed";
      box.setAttribute("viewBox", `${sides[0]} ${sides[1]} ${sides[2] - sides[0]} ${sides[3] - sides[1]}`);
      box.toggleAttribute("hidden", false);
      for (const rect of $$("rect", box)) {
        rect.setAttribute("x", cut[0]); rect.setAttribute("y", cut[1]);
        rect.setAttribute("width", cut[2] - cut[0]); rect.setAttribute("height", cut[3] - cut[1]);
      }
      $(".shade", box).toggleAttribute("hidden", false);
    }
  };
  const sayMissing = () => { told.textContent += " · the source is not here or cannot be played; this is what was recorded"; };
  const seek = (time) => {
    const go = () => {
      video.currentTime = time + 0.001;  // a hair behind the frame's own time, so that rounding shows no earlier one
      stopAt = time + PLAY_S;
      if (!calm) video.play().catch(() => {});
    };
    if (video.readyState >= 1) go(); else { video.preload = "auto"; video.addEventListener("loadedmetadata", go, { once: true }); video.load(); }
  };
  const show = (at) => {
    shown = at;
    const source = sources[at.dataset.source];
    for (const old of $$(".on")) old.classList.remove("on");
    if (at.dataset.handle) for (const same of $$(`[data-handle="${CSS.escape(at.dataset.handle)}"]`)) same.classList.add("on");
    $(".hint", stage)?.remove();
    const sha = at.dataset.sha ?? $(`.mark[data-handle="${CSS.escape(at.dataset.handle ?? "")}"]`)?.dataset.sha;
    seen.hidden = !sha;
    if (sha) $("img", seen).src = pictureUrl(sha);
    const words = [at.dataset.handle, at.dataset.source, at.dataset.time === undefined ? "" : clock(Number(at.dataset.time))].filter(Boolean);
    const sides = (at.dataset.box ?? "").split(",").map((side) => Math.round(Number(side)));
    told.textContent = words.join(" · ") + (sides.length === 4 && source && (sides[2] - sides[0] < source.width - 1 || sides[3] - sides[1] < source.height - 1) ? ` · ${sides[0]},${sides[1]} to ${sides[2]},${sides[3]} px` : "");
    markStep(Number(at.dataset.turn));
    if (source && (!source.url || source.failed)) sayMissing();
    if (!source?.url || source.failed) return showRecorded();
    if (source.kind === "image") {
      video.hidden = controls.hidden = true; still.hidden = false; screen.dataset.state = "image";
      still.onerror = () => { still.onerror = null; source.failed = true; showRecorded(); };
      if (still.getAttribute("src") !== source.url) still.src = source.url;
      return drawBox(at, source);
    }
    still.hidden = true; video.hidden = controls.hidden = false; screen.dataset.state = "video";
    video.width = source.width; video.height = source.height;
    if (video.getAttribute("src") !== source.url) {
      video.onerror = () => { source.failed = true; sayMissing(); showRecorded(); };
      video.src = source.url;
    }
    drawBox(at, source);
    if (at.dataset.time !== undefined) seek(Number(at.dataset.time));
  };
  const controls = $(".controls", stage), slider = $("input", controls), shownTime = $("output", controls);
  acts.play = () => { stopAt = null; if (video.paused) video.play().catch(() => {}); else video.pause(); };
  video.addEventListener("click", acts.play);
  for (const what of ["play", "pause"]) video.addEventListener(what, () => { $("button", controls).textContent = video.paused ? "▶" : "❚❚"; });
  slider.addEventListener("input", () => { stopAt = null; video.currentTime = Number(slider.value); });
  video.addEventListener("loadedmetadata", () => { slider.max = video.duration; });
  video.addEventListener("timeupdate", () => {
    slider.value = video.currentTime;
    shownTime.textContent = clock(Math.floor(video.currentTime * 10) / 10);
    slider.setAttribute("aria-valuetext", shownTime.textContent);
    if (stopAt !== null && video.currentTime >= stopAt && !video.seeking) { video.pause(); stopAt = null; }
    if (shown?.dataset.time !== undefined) box.classList.toggle("past", Math.abs(video.currentTime - Number(shown.dataset.time)) > FADE_S);
    for (const strip of $$(".strip")) {
      const head = $(".playhead", strip), here = shown && strip.dataset.source === shown.dataset.source;
      if (!head || !video.duration) continue;
      head.setAttribute("visibility", here ? "visible" : "hidden");
      for (const end of ["x1", "x2"]) head.setAttribute(end, `${100 * video.currentTime / video.duration}%`);
    }
  });
  video.addEventListener("pause", () => { if (!video.seeking) stopAt = null; });

  document.addEventListener("click", (event) => {
    const at = event.target.closest?.("[data-kind]");
    if (!at) return;
    show(at);
    if (innerWidth <= 860) stage.scrollIntoView({ block: "start", behavior: calm ? "auto" : "smooth" });
  });

  // ---- looks by keys: within a strip the arrows move, as in a tool bar; [ and ] go through all of them by time
  const focusMark = (mark) => {
    for (const other of $$(".mark", mark.closest("svg"))) other.setAttribute("tabindex", other === mark ? "0" : "-1");
    mark.focus();
  };
  document.addEventListener("keydown", (event) => {
    const mark = event.target.closest?.(".mark");
    if (!mark) return;
    const all = $$(".mark", mark.closest("svg")), at = all.indexOf(mark);
    const next = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (next !== undefined) focusMark(all[Math.max(0, Math.min(all.length - 1, next))]);
    else if (event.key === "Enter" || event.key === " ") show(mark);
    else return;
    event.preventDefault();
  });
  const nextLook = (by) => {
    const all = $$(".mark");
    const now = all.findIndex((mark) => mark.classList.contains("on"));
    const mark = all[Math.max(0, Math.min(all.length - 1, now < 0 ? 0 : now + by))];
    if (mark) { focusMark(mark); show(mark); }
  };
  keys["]"] = () => nextLook(1);
  keys["["] = () => nextLook(-1);
  keys[" "] = (event) => {
    if (video.hidden || event.target.matches("button, summary, a, input")) return false;
    acts.play();
  };

  // ---- steps
  const markStep = (turn) => {
    for (const old of $$(".step.at")) old.classList.remove("at");
    if (turn) document.getElementById(`step-${turn}`)?.classList.add("at");
  };
  const load = async (chunk) => {
    if (!chunk.hasAttribute("data-wanted") || !base) return;
    chunk.removeAttribute("data-wanted");
    const [from, to] = chunk.dataset.turns.split(" ").map(Number);
    const answer = await fetch(`${base}/steps?first=${chunk.dataset.first}&count=${to - from + 1}`).catch(() => null);
    if (answer?.ok) chunk.innerHTML = await answer.text(); else chunk.setAttribute("data-wanted", "");
  };
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) load(entry.target);
  }, { rootMargin: "800px" });
  for (const chunk of $$(".chunk[data-wanted]")) near.observe(chunk);
  const goTo = async (turn) => {
    const chunk = $$(".chunk").find((one) => { const [first, last] = one.dataset.turns.split(" ").map(Number); return first <= turn && turn <= last; });
    if (chunk) await load(chunk);
    const step = document.getElementById(`step-${turn}`);
    if (!step) return;
    step.scrollIntoView({ block: "start" });
    step.focus({ preventScroll: true });
    markStep(turn);
  };
  acts.goto = (at) => { goTo(Number(at.dataset.turn)); };
  const moveStep = (by) => {
    const all = $$(".step"), held = document.activeElement?.closest?.(".step");
    let at = all.indexOf(held);
    if (at < 0) at = all.findIndex((step) => step.getBoundingClientRect().top >= 0) - (by > 0 ? 1 : 0);
    const step = all[Math.max(0, Math.min(all.length - 1, at + by))];
    if (step) goTo(Number(step.dataset.turn));
  };
  keys["j"] = () => moveStep(1);
  keys["k"] = () => moveStep(-1);
  keys["g"] = () => goTo(Number($(".chunk")?.dataset.turns.split(" ")[0]));
  keys["G"] = () => goTo(Number($$(".chunk").at(-1)?.dataset.turns.split(" ")[1]));
  const fromAddress = () => { const named = /^#step-(\d+)$/.exec(location.hash); if (named) goTo(Number(named[1])); };
  addEventListener("hashchange", fromAddress);
  fromAddress();

  // ---- search
  const found = $("#found"), field = $("#search");
  acts.unfind = () => { found.hidden = true; if (field) field.value = ""; };
  keys["Escape"] = () => { if (found.hidden) return false; acts.unfind(); field?.focus(); };
  $("form[data-act=find]")?.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!field.value.trim()) return acts.unfind();
    const answer = await fetch(`${base}/search?q=${encodeURIComponent(field.value)}`).catch(() => null);
    if (!answer?.ok) return;
    found.innerHTML = await answer.text();
    found.hidden = false;
    $("a", found)?.focus();
  });

  // ---- the live tail
  let seq = Number(body.dataset.seq), running = Boolean($("#waiting")?.textContent.trim()), ended = !body.dataset.live;
  const grow = async () => {
    if (ended || document.hidden) return;
    const answer = await fetch(`${base}/tail?after=${seq}&running=${running ? 1 : 0}`).catch(() => null);
    if (answer?.status !== 200) return;
    const news = await answer.json();
    const atEnd = innerHeight + scrollY >= document.documentElement.scrollHeight - 120;
    ({ seq, running, ended } = news);
    $("#head").innerHTML = news.head;
    if (news.strips !== null) $("#strips").innerHTML = news.strips;
    let last = $$(".chunk").at(-1);
    if (!last) { last = document.createElement("div"); last.className = "chunk"; last.dataset.turns = "1 1"; $("#waiting").before(last); }
    const fresh = document.createElement("template");
    fresh.innerHTML = news.steps;
    for (const step of [...fresh.content.children]) {
      const known = step.id && document.getElementById(step.id);
      if (known) known.replaceWith(step); else if (!last.hasAttribute("data-wanted")) last.append(step);
      if (step.dataset.turn) last.dataset.turns = last.dataset.turns.split(" ")[0] + " " + step.dataset.turn;
    }
    $("#waiting").textContent = ended || !running ? "" : "waiting for what comes next";
    if (atEnd && seq > 3) scrollTo({ top: document.documentElement.scrollHeight });
  };
  if (!ended && base) setInterval(grow, 500);
})();
