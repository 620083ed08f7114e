// What the page does beyond what works without it: choices take effect at once, numbers are brought up to date, and
// new events come in by themselves.
"use strict";

document.addEventListener("change", (event) => {
  if (event.target.matches("[data-submits]") && event.target.form) event.target.form.requestSubmit();
});

const main = document.getElementById("main");
const seconds = Number(main.dataset.refresh);
if (seconds) {
  setInterval(async () => {
    if (document.hidden || main.querySelector("details[open]") || String(getSelection())) return;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (!answer.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const replacement = fresh.getElementById("main");
      if (!replacement) return;
      if (!document.querySelector("form.filter") !== !fresh.querySelector("form.filter")) location.reload();
      else main.replaceChildren(...replacement.childNodes);
    } catch { /* the next look may succeed */ }
  }, seconds * 1000);
}

const state = document.getElementById("state");
const rows = document.getElementById("arriving");
if (state && rows && window.EventSource) {
  const most = 200;
  const source = new EventSource(state.dataset.stream);
  const say = (text) => { if (state.textContent !== text) state.textContent = text; };
  source.onopen = () => say("The newest events, and each that comes.");
  source.onerror = () => say("The connection was lost; trying again.");
  source.addEventListener("problem", (event) => say(JSON.parse(event.data)));
  source.onmessage = (event) => {
    say("The newest events, and each that comes.");
    const template = document.createElement("template");
    template.innerHTML = JSON.parse(event.data).join("");
    rows.prepend(template.content);
    while (rows.rows.length > most) rows.deleteRow(-1);
  };
}

// The names of the zones, the reader's own first: the browser knows them, so that no page has to carry them.
const zones = document.getElementById("zones");
if (zones && Intl.supportedValuesOf) {
  const mine = Intl.DateTimeFormat().resolvedOptions().timeZone;
  for (const name of new Set([mine, "UTC", ...Intl.supportedValuesOf("timeZone")])) {
    zones.append(new Option("", name));
  }
}
