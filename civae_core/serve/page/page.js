// The page of `civae serve`: sends a photo once, then asks a question for every change.
"use strict";

const PAUSE = 60; // milliseconds between two questions while a slider moves; the server allows 20 a second
const $ = (id) => document.getElementById(id);

const state = {
  page: null, // what /api/page says
  photo: null, // name of the photograph on the server
  file: null, // to be sent again when faces are to be looked for in another way
  example: null,
  treat: {}, // sliders that were moved, by treatment
  attr: {}, // values that were stated, by attribute
  asking: false,
  askAgain: false,
  visit: 0, // counts photographs, so that a late answer about the last one is not shown
};

class Refused extends Error {}

async function call(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Refused("The program behind this page does not answer; was it stopped?");
  }
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  const failed = new Refused([said.error || `error ${response.status}`, said.hint].filter(Boolean).join("; "));
  failed.retryAfter = Number(response.headers.get("retry-after")) || 0;
  throw failed;
}

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function say(text) { $("status").textContent = text; }

function fail(error) {
  if (!(error instanceof Refused)) console.error(error);
  const noFace = error.message.includes("no face found") ? "; set Face to “used as it is” to use the photo anyway" : "";
  $("error").textContent = error.message + noFace;
  $("error").hidden = false;
  say("");
}

function clearError() { $("error").hidden = true; }

// ---- numbers and words

function short(value) { return String(Number(value.toPrecision(4))).replace("-", "−"); }

function shown(attribute, value) {
  if (attribute.kind === "binary" && value === 0) return "no";
  if (attribute.kind === "binary" && value === 1) return "yes";
  return short(value);
}

function isBeyond(attribute, value) {
  const slack = 1e-6 * Math.max(Math.abs(attribute.low), Math.abs(attribute.high));
  return value < attribute.low - slack || value > attribute.high + slack;
}

function models() {
  const first = Number($("model").value || 0);
  const second = $("compare").value;
  return second === "" || Number(second) === first ? [first] : [first, Number(second)];
}

// Attributes of all models that are shown, each once.
function attributesOf(key) {
  const found = new Map();
  for (const number of models()) {
    for (const attribute of state.page.models[number][key]) {
      if (!found.has(attribute.name)) found.set(attribute.name, attribute);
    }
  }
  return [...found.values()];
}

// ---- the photograph

async function give(send, face = null) {
  const visit = ++state.visit;
  clearError();
  say("Reading the photo…");
  if (state.photo) letGo(state.photo);
  state.photo = null;
  state.treat = {};
  state.attr = {};
  try {
    const found = await (await send()).json();
    if (visit !== state.visit) { letGo(found.photo); return; }
    state.photo = found.photo;
    showFaces(found.faces, face);
    $("save-native").hidden = !found.native;
    buildControls();
    $("change").hidden = $("known").hidden = false;
    await ask();
  } catch (error) {
    if (visit !== state.visit) return;
    $("answers").replaceChildren();
    delete $("answers").dataset.shape;
    $("change").hidden = $("known").hidden = $("legend").hidden = true;
    fail(error);
  }
}

function letGo(photo) { call(`/api/photos/${photo}`, { method: "DELETE" }).catch(() => {}); }

function giveFile(file, face = "largest") {
  state.file = file;
  state.example = null;
  markExample();
  if (face === "largest") $("face-choice").hidden = true;
  const query = new URLSearchParams({ align: $("align").value, face });
  give(() => {
    const most = state.page.upload_bytes;
    if (file.size > most) throw new Refused(`${file.name} is larger than the ${Math.floor(most / 2 ** 20)} MB that this page takes.`);
    return call(`/api/photos?${query}`, { method: "POST", body: file });
  }, face);
}

function giveExample(number) {
  state.example = number;
  state.file = null;
  $("face-choice").hidden = true;
  markExample();
  give(() => call(`/api/examples/${number}`, { method: "POST" }));
}

function markExample() {
  for (const button of $("examples").children) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.number) === state.example));
  }
}

// Offer the faces of a photo, of which `face` is shown.
function showFaces(count, face) {
  if (count < 2) return;
  const select = $("face");
  select.replaceChildren(make("option", { value: "largest" }, "the largest"));
  for (let i = 1; i <= count; i++) select.append(make("option", { value: String(i) }, `${i} from the left`));
  select.value = face;
  $("face-choice").hidden = false;
}

// ---- sliders and attributes

function buildControls() {
  $("sliders").replaceChildren(...attributesOf("treatments").map(slider));
  $("attributes").replaceChildren(
    ...[...attributesOf("treatments"), ...attributesOf("covariates")].map(statement));
}

function slider(attribute) {
  const id = `treat-${attribute.name}`;
  const width = attribute.to - attribute.from;
  const input = make("input", {
    id, type: "range", min: String(attribute.from), max: String(attribute.to), step: String(width / 100),
    "aria-describedby": `${id}-note`,
  });
  input.dataset.treatment = attribute.name;
  input.style.setProperty("--a", (attribute.low - attribute.from) / width);
  input.style.setProperty("--b", (attribute.high - attribute.from) / width);
  const marks = make("div", { class: "marks", "aria-hidden": "true" });
  for (const value of [attribute.low, attribute.high]) {
    const mark = make("span", {}, shown(attribute, value));
    mark.style.setProperty("--at", (value - attribute.from) / width);
    marks.append(mark);
  }
  input.addEventListener("input", () => {
    state.treat[attribute.name] = Number(Number(input.value).toPrecision(6));
    showSlider(attribute, state.treat[attribute.name]);
    ask();
  });
  return make("div", { class: "slider" },
    make("div", { class: "slider-head" }, make("label", { for: id }, attribute.name), make("output", { for: id })),
    input, marks,
    make("p", { id: `${id}-note`, class: "small" },
      `The coloured part, ${short(attribute.low)} to ${short(attribute.high)}, was seen in training; the rest is ${
        attribute.kind === "binary" ? "extrapolation" : "answered as at the nearer end of it"}.`));
}

function showSlider(attribute, value) {
  const input = $(`treat-${attribute.name}`);
  const box = input.closest(".slider");
  const beyond = isBeyond(attribute, value);
  input.value = value;
  const nearest = short(value < attribute.low ? attribute.low : attribute.high);
  const how = attribute.kind === "binary" ? "extrapolated" : `answered as ${nearest}`;
  const text = shown(attribute, value) + (beyond ? `, ${how}` : "");
  box.querySelector("output").textContent = text;
  input.setAttribute("aria-valuetext", text);
  box.classList.toggle("beyond", beyond);
}

function statement(attribute) {
  const id = `attr-${attribute.name}`;
  let input;
  if (attribute.kind === "binary") {
    input = make("select", { id }, make("option", { value: "" }, "as read"),
      make("option", { value: "0" }, "no"), make("option", { value: "1" }, "yes"));
  } else {
    input = make("input", { id, type: "number", step: "any" });
  }
  if (attribute.name in state.attr) input.value = String(state.attr[attribute.name]);
  input.addEventListener("change", () => {
    if (input.value === "" || !Number.isFinite(Number(input.value))) delete state.attr[attribute.name];
    else state.attr[attribute.name] = Number(input.value);
    ask();
  });
  return make("div", { class: "attribute" }, make("label", { for: id }, attribute.name), input);
}

// How an attribute was read by a model: "yes (93 % sure)".
function reading(attribute, answer) {
  const value = answer.factual[attribute.name];
  const text = shown(attribute, value);
  if (attribute.name in state.attr) return `${text} (stated)`;
  if (!(attribute.name in answer.predicted)) return `${text} (known)`;
  const probability = answer.predicted[attribute.name];
  if (probability !== null) return `${text} (${Math.floor(100 * Math.max(probability, 1 - probability))} % sure)`;
  const spread = answer.spreads[attribute.name];
  return spread === undefined ? text : `${text} ± ${short(spread)}`;
}

function showReadings(answer) {
  const model = state.page.models[answer.model];
  for (const attribute of [...model.treatments, ...model.covariates]) {
    const input = $(`attr-${attribute.name}`);
    if (attribute.name in state.attr) continue;
    const text = reading(attribute, answer);
    if (attribute.kind === "binary") input.options[0].textContent = text;
    else input.placeholder = text;
  }
}

// ---- questions and answers

function question(extra = {}) {
  const named = (values, keys) => {
    const known = new Set(keys.flatMap((key) => attributesOf(key).map((a) => a.name)));
    return Object.fromEntries(Object.entries(values).filter(([name]) => known.has(name)));
  };
  const body = {
    models: models(),
    treat: named(state.treat, ["treatments"]),
    attr: named(state.attr, ["treatments", "covariates"]),
    noise: Number($("noise").value),
    ...extra,
  };
  return { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// One question at a time; changes meanwhile lead to one more question, about the newest state.
async function ask() {
  if (!state.photo) return;
  if (state.asking) { state.askAgain = true; return; }
  state.asking = true;
  const visit = state.visit;
  try {
    do {
      state.askAgain = false;
      try {
        const started = performance.now();
        const found = await (await call(`/api/photos/${state.photo}/answer`, question())).json();
        if (visit !== state.visit) break;
        clearError();
        show(found, performance.now() - started);
      } catch (error) {
        if (visit !== state.visit) break;
        if (error.retryAfter) {
          await pause(1000 * error.retryAfter);
          state.askAgain = true;
        } else {
          fail(error);
        }
      }
      await pause(PAUSE);
    } while (state.askAgain && state.photo && visit === state.visit);
  } finally {
    state.asking = false;
    if (visit !== state.visit && state.photo) ask();
  }
}

function show(found, milliseconds) {
  const answers = $("answers");
  const shape = found.answers.map((answer) => answer.model).join();
  if (answers.dataset.shape !== shape) {
    answers.replaceChildren(...found.answers.map((answer) => frame(answer.model)));
    answers.dataset.shape = shape;
  }
  found.answers.forEach((answer, row) => fill(answers.children[row], answer));
  $("legend").hidden = false;
  const percent = Number((100 * found.limit).toPrecision(2));
  $("darker").textContent = `darker by ${percent} %`;
  $("brighter").textContent = `brighter by ${percent} %`;
  for (const answer of [...found.answers].reverse()) {
    showReadings(answer); // of an attribute that both models have, the first one's stays
    for (const attribute of state.page.models[answer.model].treatments) {
      const moved = state.treat[attribute.name];
      showSlider(attribute, moved === undefined ? answer.factual[attribute.name] : moved);
    }
  }
  say(summary(found.answers[0]));
  answers.dataset.milliseconds = milliseconds.toFixed(0);
}

function summary(answer) {
  const treatments = state.page.models[answer.model].treatments;
  const set = treatments
    .filter((a) => a.name in answer.treat)
    .map((a) => {
      const [asked, was] = [shown(a, answer.treat[a.name]), shown(a, answer.factual[a.name])];
      return `${a.name}: ${asked}${asked === was ? ", as it is" : ` instead of ${was}`}`;
    });
  const what = set.length ? set.join(", ") : "Nothing changed";
  if (answer.largest_difference === 0) return `${what}; the same pixels as the original.`;
  return `${what}; pixels differ by ${answer.mean_difference} of 255 levels on average, and by at most ${answer.largest_difference}.`;
}

function frame(number) {
  const model = state.page.models[number];
  const picture = (kind, words) =>
    make("figure", {}, make("img", { class: kind, alt: "", width: String(model.size), height: String(model.size) }),
      make("figcaption", {}, words));
  return make("article", { class: "answer", "aria-label": model.name },
    make("h3", { hidden: state.page.models.length < 2 }, model.name),
    make("div", { class: "row" }, picture("original", "original"), picture("counterfactual", "counterfactual"),
      picture("effect", "effect: what the model changes")),
    make("p", { class: "read" }), make("ul", { class: "notes", hidden: true }));
}

function fill(article, answer) {
  const model = state.page.models[answer.model];
  const words = model.treatments.filter((a) => a.name in answer.treat)
    .map((a) => `${a.name}: ${shown(a, answer.treat[a.name])}`).join(", ");
  const alts = {
    original: "The original picture",
    counterfactual: words ? `The counterfactual with ${words}` : "The picture with nothing changed",
    effect: "Map of the effect: blue is darker, red is brighter",
  };
  for (const [kind, key] of [["original", "original"], ["counterfactual", "image"], ["effect", "effect"]]) {
    const image = article.querySelector(`img.${kind}`);
    image.src = answer[key];
    image.alt = `${alts[kind]} (${model.name})`;
  }
  article.querySelector(".counterfactual + figcaption").textContent =
    words ? `counterfactual, ${words}` : "counterfactual, nothing changed";
  article.querySelector(".read").hidden = models().length < 2; // of one model, the list beside says so
  article.querySelector(".read").textContent = "Read as " + [...model.treatments, ...model.covariates]
    .map((attribute) => `${attribute.name} ${reading(attribute, answer)}`).join(", ") + ".";
  const notes = article.querySelector(".notes");
  const told = [...answer.notes];
  if (answer.unfamiliar && state.file && state.page.finds_faces && $("align").value !== "always") {
    told.push("If the photo shows a face, set Face to “always found”.");
  }
  notes.hidden = told.length === 0;
  notes.replaceChildren(...told.map((note) => make("li", {}, note)));
}

async function download(native) {
  clearError();
  say("Preparing the download…");
  try {
    const image = await (await call(`/api/photos/${state.photo}/download`, question({ native }))).blob();
    const link = make("a", { href: URL.createObjectURL(image), download: fileName(native) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    say(`Downloaded ${link.download}.`);
  } catch (error) {
    fail(error);
  }
}

function fileName(native) {
  const stem = state.file ? state.file.name.replace(/\.[^.]*$/, "") : `example-${state.example}`;
  const set = Object.entries(state.treat).map(([name, value]) => `${name}=${value}`).join("_") || "unchanged";
  const noise = Number($("noise").value) === 1 ? "" : `__noise=${$("noise").value}`;
  return `${stem}__${set}${noise}${native ? "__native" : ""}.png`.replace(/[\\/:*?"<>|]/g, "-");
}

// ---- the page

function listen() {
  $("file").addEventListener("change", () => {
    const [file] = $("file").files;
    if (file) giveFile(file);
    $("file").value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("dragover", (event) => { event.preventDefault(); $("drop").classList.add("over"); });
  document.addEventListener("dragleave", () => $("drop").classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    $("drop").classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) giveFile(file);
  });
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    if (file) giveFile(file);
  });
  $("align").addEventListener("change", () => { if (state.file) giveFile(state.file); });
  $("face").addEventListener("change", () => { if (state.file) giveFile(state.file, $("face").value); });
  for (const id of ["model", "compare"]) {
    $(id).addEventListener("change", () => { if (state.photo) { buildControls(); ask(); } });
  }
  $("noise").addEventListener("input", () => { $("noise-value").textContent = $("noise").value; ask(); });
  $("null").addEventListener("click", () => { state.treat = {}; ask(); });
  $("save").addEventListener("click", () => download(false));
  $("save-native").addEventListener("click", () => download(true));
}

async function start() {
  try {
    state.page = await (await call("/api/page")).json();
  } catch (error) {
    fail(error);
    return;
  }
  const names = state.page.models.map((model) => model.name);
  $("model").replaceChildren(...names.map((name, i) => make("option", { value: String(i) }, name)));
  $("compare").replaceChildren(make("option", { value: "" }, "none"),
    ...names.map((name, i) => make("option", { value: String(i) }, name)));
  $("compare-choice").hidden = names.length < 2;
  $("minutes").textContent = state.page.kept_minutes;
  if (!state.page.finds_faces) $("align").value = "never";
  $("place").hidden = !state.page.finds_faces;
  $("examples").hidden = state.page.examples === 0;
  for (let i = 0; i < state.page.examples; i++) {
    const button = make("button", { type: "button", "aria-label": `Example ${i + 1}`, "aria-pressed": "false" },
      make("img", { src: `/api/examples/${i}.png`, alt: "", loading: "lazy" }));
    button.dataset.number = i;
    button.addEventListener("click", () => giveExample(i));
    $("examples").append(button);
  }
  listen();
  document.body.dataset.ready = "yes";
}

start();
