"use strict";
// Draws charts when they come near, copies and saves their data. Without it the page has pictures and tables.
const contents = JSON.parse(document.getElementById("contents").textContent);
const said = document.getElementById("said");
const options = { actions: false, renderer: "svg", tooltip: { theme: "custom" } };

// The rows of a chart lie in the page column by column, texts as numbers of a list.
function specification(slug) {
  const { spec, table } = contents[slug];
  if (!spec.datasets) {
    const columns = Object.entries(table).map(([name, column]) =>
      [name, column.levels ? column.codes.map((code) => column.levels[code]) : column]);
    const length = columns.length ? columns[0][1].length : 0;
    spec.datasets = { [spec.data.name]: Array.from({ length }, (_, row) =>
      Object.fromEntries(columns.map(([name, values]) => [name, values[row]]))) };
  }
  return spec;
}

// Links of marks stay on the page.
function follow(href) {
  const place = document.getElementById(href.slice(1));
  if (place) { location.hash = href; place.focus(); }
}

// The element around a chart says what it is, and the table has its numbers: parts of the drawing say nothing.
function silence(element) {
  for (const part of element.querySelectorAll("[role], [aria-roledescription]")) {
    for (const name of ["role", "aria-roledescription", "aria-label"]) part.removeAttribute(name);
  }
  element.querySelector("svg").setAttribute("aria-hidden", "true");
  element.removeAttribute("aria-roledescription");
  element.setAttribute("role", "img");
  element.setAttribute("aria-label", element.closest("figure").querySelector("figcaption p").textContent);
}

const views = {};

async function draw(element) {
  const slug = element.dataset.figure;
  views[slug] ??= vegaEmbed(element, specification(slug), options);
  try {
    element.hidden = false;
    const { view } = await views[slug];
    view.addEventListener("click", (event, item) => {
      if (item && item.href) { event.preventDefault(); event.stopPropagation(); follow(item.href); }
    });
    silence(element);
    element.parentElement.classList.add("drawn");
    return view;
  } catch (error) {
    element.hidden = true;
    console.error(error);
    throw error;
  }
}

const list = document.querySelector("nav details");
if (matchMedia("(max-width: 70rem)").matches) list.open = false;

if (typeof vegaEmbed === "function") {
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) {
      seen.unobserve(entry.target);
      draw(entry.target.querySelector(".live"));
    }
  }, { rootMargin: "600px" });
  for (const chart of document.querySelectorAll(".chart")) seen.observe(chart);
}

// What is drawn, as CSV (RFC 4180).
function csv(slug) {
  const spec = specification(slug), { columns } = contents[slug];
  const field = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const rows = Object.values(spec.datasets)[0].map((row) => columns.map((name) => field(row[name])).join(","));
  return [columns.map(field).join(","), ...rows, ""].join("\n");
}

function save(name, text, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function copy(text) {
  if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea"); // a page opened from a file may have no clipboard of its own
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("the browser refused");
}

async function picture(slug) {
  const view = await draw(document.querySelector(`.live[data-figure="${slug}"]`));
  return view.toSVG();
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const { copy: copied, save: saved, picture: drawn } = button.dataset;
  try {
    if (copied) { await copy(csv(copied)); said.textContent = "copied"; }
    if (saved) save(`${saved}.csv`, csv(saved), "text/csv");
    if (drawn) save(`${drawn}.svg`, await picture(drawn), "image/svg+xml");
    const text = button.firstChild;
    const before = text.textContent;
    text.textContent = "Done";
    setTimeout(() => { text.textContent = before; }, 1500);
  } catch (error) {
    said.textContent = `that did not work: ${error.message}`;
    button.firstChild.textContent = "Refused";
  }
});
