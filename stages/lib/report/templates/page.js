// Filters of the table of prompts. Everything is in the page already: without this script all rows are shown.
// The choice is kept in the address (#set=hazards&flip=lost), so that a review can link to what it counts.
"use strict";
const form = document.querySelector(".filters");
const rows = Array.from(document.querySelectorAll(".prompts > tbody > tr"), (row) => ({
  row, set: row.dataset.set, flip: row.dataset.flip, hazard: row.dataset.hazard, text: row.textContent.toLowerCase(),
}));
const count = document.querySelector(".count");

function show() {
  const chosen = Object.fromEntries(new FormData(form));
  const words = chosen.find.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const each of rows) {
    const fits = (!chosen.set || each.set === chosen.set)
      && (!chosen.hazard || each.hazard === chosen.hazard)
      && (!chosen.flip || (chosen.flip === "any" ? each.flip !== "" : each.flip === chosen.flip))
      && words.every((word) => each.text.includes(word));
    each.row.hidden = !fits;
    shown += fits;
  }
  count.textContent = `${shown} of ${rows.length} prompts shown`;
}

function choose() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  if (!["set", "flip", "hazard", "find"].some((name) => wanted.has(name))) return;
  for (const name of ["set", "flip", "hazard", "find"]) form.elements[name].value = wanted.get(name) || "";
  show();
  document.getElementById("prompts").scrollIntoView();
}

function keep() {
  const chosen = [...new FormData(form)].filter(([, value]) => value);
  history.replaceState(null, "", "#" + (chosen.length ? new URLSearchParams(chosen) : "prompts"));
  show();
}

if (form) {
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", keep);
  form.addEventListener("reset", () => setTimeout(keep));
  window.addEventListener("hashchange", choose);
  show();
  choose();
}
