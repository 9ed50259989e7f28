// The page of maskserve. It uses the public API only and no library.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const SETTLE_MS = 250; // a slider sends many events; one request after the last is enough
const RETRY_MS = 1500; // between questions whether the models are loaded

const byId = (id) => document.getElementById(id);
const main = byId("main");

/** What is shown now: the photo as it was given, and the API's last answer to it. */
const current = { photo: null, name: "", answer: null };

let key = storedKey(); // for as long as the tab is open
let running = null; // AbortController of the request under way
let settling = 0; // timer of the slider
let urls = []; // object URLs of the answer on show, to be revoked with it

// --- asking the API ---------------------------------------------------------------------------

/**
 * The JSON of an answer; throws a problem, as RFC 9457 has it, for anything but success. Where the
 * server asks for a key, the person at the page is asked, and then the server once more.
 */
async function ask(url, options = {}) {
  for (;;) {
    const used = key;
    // Not “Authorization”, which a proxy in front may ask for itself.
    const headers = { ...options.headers, ...(used && { "X-API-Key": used }) };
    try {
      const response = await fetch(url, { ...options, headers });
      const body = await response.json();
      if (response.ok) return body;
      if (response.status !== 401) throw body;
    } catch (error) {
      if (error instanceof TypeError || error instanceof SyntaxError) {
        throw { title: "The server cannot be reached", detail: "Is it still running?" };
      }
      throw error; // a problem, or the AbortError of a request that a newer one replaced
    }
    if (used === key) await newKey(options.signal);
  }
}

/** Resolves once a key was typed; rejects if the request that needs it is replaced meanwhile. */
function newKey(signal) {
  byId("finds").textContent = "";
  byId("key-form").hidden = false;
  byId("key-wrong").hidden = !key;
  byId("key").focus();
  return new Promise((resolve, reject) => {
    byId("key-form").addEventListener("submit", resolve, { once: true, signal });
    signal?.addEventListener("abort", () => reject(signal.reason));
  });
}

function storedKey() {
  try {
    return sessionStorage.getItem("key");
  } catch {
    return null; // the browser keeps nothing of this page
  }
}

function storeKey(value) {
  key = value;
  try {
    sessionStorage.setItem("key", value);
  } catch {
    // then it lasts until the page is left
  }
}

async function loadModels() {
  for (;;) {
    try {
      return await ask("/v1/models");
    } catch (problem) {
      byId("finds").textContent = `${problem.title}. ${problem.detail}`;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

function segmentUrl(extra) {
  const parameters = new URLSearchParams({
    min_score: byId("score").value,
    style: byId("controls").elements.style.value,
    ...extra,
  });
  const { value: model, dataset } = byId("model");
  const route = model === dataset.default ? "/v1/segment" : `/v1/models/${model}/segment`;
  return `${route}?${parameters}`;
}

async function segment() {
  if (!current.photo || !byId("model").value) return; // the latter while models are loading
  running?.abort();
  const request = new AbortController();
  running = request;
  setBusy(true);
  try {
    const answer = await ask(segmentUrl({ masks: "polygon", include: "image" }), {
      method: "POST",
      headers: { "Content-Type": "application/octet-stream" },
      body: current.photo,
      signal: request.signal,
    });
    showAnswer(answer);
  } catch (problem) {
    if (problem.name !== "AbortError") showProblem(problem);
  } finally {
    if (running === request) setBusy(false);
  }
}

// --- showing ----------------------------------------------------------------------------------

function setBusy(busy) {
  byId("progress").hidden = !busy;
  main.setAttribute("aria-busy", busy);
  if (busy) byId("status").textContent = "Working …";
}

function showPhoto(photo, name) {
  Object.assign(current, { photo, name, answer: null });
  main.dataset.state = "photo";
  for (const id of ["found", "take", "error", "caption"]) byId(id).hidden = true;
  byId("result").hidden = false; // holds its place from the start, so that nothing jumps later
  for (const id of ["masked", "unmasked"]) byId(id).textContent = "–";
  byId("share").setAttribute("width", 0);
  byId("pixels").textContent = "Counting …";
  byId("choose").textContent = "Choose another";
  highlight(null);
  showPicture(photo);
  segment();
}

function showPicture(blob) {
  urls.forEach(URL.revokeObjectURL);
  urls = [];
  byId("photo").src = objectUrl(blob);
  byId("picture").hidden = false;
}

function objectUrl(blob) {
  urls.push(URL.createObjectURL(blob));
  return urls.at(-1);
}

function showProblem(problem) {
  current.answer = null;
  for (const id of ["result", "found", "take", "caption"]) byId(id).hidden = true;
  byId("error").hidden = false;
  byId("error-title").textContent = problem.title;
  byId("error-detail").textContent = problem.detail;
  byId("status").textContent = "";
}

const percent = (value) => `${value.toFixed(2)}%`;
const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

function showAnswer(answer) {
  const { drawn_image: drawn, ...rest } = answer;
  const { coverage, image, instances } = answer;
  current.answer = answer;
  byId("error").hidden = true;
  for (const id of ["result", "found", "take", "caption"]) byId(id).hidden = false;

  const picture = new Blob([Uint8Array.from(atob(drawn.base64), (c) => c.charCodeAt(0))], {
    type: drawn.media_type,
  });
  showPicture(picture);
  byId("photo").alt = `${current.name} with ${count(instances.length, "masked instance")}`;
  byId("highlight").setAttribute("viewBox", `0 0 ${image.width} ${image.height}`);
  byId("caption").textContent =
    `${current.name} · ${image.width} × ${image.height} · ${Math.round(answer.timing_ms.total)} ms`;

  byId("masked").textContent = percent(coverage.masked_percent);
  byId("unmasked").textContent = percent(coverage.unmasked_percent);
  byId("share").setAttribute("width", coverage.masked_percent);
  byId("pixels").textContent =
    `${coverage.masked_px.toLocaleString("en")} of ${coverage.total_px.toLocaleString("en")} pixels`;
  byId("status").textContent =
    `${count(instances.length, "instance")}, ${percent(coverage.masked_percent)} masked`;

  byId("found-heading").textContent = count(instances.length, "instance");
  byId("none").hidden = instances.length > 0;
  byId("instances").hidden = instances.length === 0;
  byId("instances").tBodies[0].replaceChildren(...instances.map(instanceRow));
  highlight(null);

  const stem = current.name.replace(/\.[^.]*$/, "");
  offer(byId("download-picture"), picture, `${stem}-masked.jpg`);
  const json = new Blob([JSON.stringify(rest, null, 2)], { type: "application/json" });
  offer(byId("download-json"), json, `${stem}-masked.json`);
  byId("curl").textContent = curlCommand();
}

function offer(link, blob, name) {
  link.href = objectUrl(blob);
  link.download = name;
}

function instanceRow(instance) {
  const row = document.createElement("tr");
  row.tabIndex = 0;
  const name = row.insertCell();
  const swatch = document.createElement("span");
  swatch.className = "swatch";
  swatch.style.background = instance.colour;
  name.append(swatch, instance.class);
  for (const text of [instance.score.toFixed(2), percent(instance.area_percent)]) {
    const cell = row.insertCell();
    cell.className = "number";
    cell.textContent = text;
  }
  for (const event of ["mouseenter", "focus"]) {
    row.addEventListener(event, () => highlight(instance));
  }
  for (const event of ["mouseleave", "blur"]) row.addEventListener(event, () => highlight(null));
  return row;
}

/** Darken everything but one instance; null takes that away. */
function highlight(instance) {
  const layer = byId("highlight");
  layer.replaceChildren();
  if (!instance) return;
  const { width, height } = current.answer.image;
  const rings = instance.mask.map((ring) => `M${ring.map((point) => point.join(" ")).join("L")}Z`);
  const veil = document.createElementNS(SVG, "path");
  veil.setAttribute("class", "veil");
  veil.setAttribute("d", `M0 0H${width}V${height}H0Z${rings.join("")}`);
  const edge = document.createElementNS(SVG, "path");
  edge.setAttribute("class", "edge");
  edge.setAttribute("d", rings.join(""));
  layer.append(veil, edge);
}

function curlCommand() {
  const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  return [
    "curl -H 'Accept: image/png'",
    ...(key ? ['-H "X-API-Key: $API_KEY"'] : []), // a command may be shown around
    `-F ${quote(`image=@${current.name}`)}`,
    "-o masked.png",
    quote(location.origin + segmentUrl({})),
  ].join(" \\\n  ");
}

// --- listening --------------------------------------------------------------------------------

function takeFile(file) {
  if (file) showPhoto(file, file.name || "photo");
}

function showScore() {
  byId("score-value").textContent = `${Math.round(byId("score").value * 100)}%`;
}

byId("file").addEventListener("change", (event) => {
  takeFile(event.target.files[0]);
  event.target.value = ""; // so that the same file can be chosen again
});

byId("example").addEventListener("click", async () => {
  const response = await fetch(main.dataset.example).catch(() => null);
  if (response?.ok) return showPhoto(await response.blob(), "example.jpg");
  showProblem({ title: "The example cannot be loaded", detail: "Choose a photo instead." });
});

addEventListener("dragover", (event) => {
  event.preventDefault();
  byId("drop").classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) byId("drop").classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  byId("drop").classList.remove("over");
  takeFile(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => takeFile(event.clipboardData.files[0]));

byId("photo").addEventListener("error", () => {
  byId("picture").hidden = true; // not a photo; the server's answer says so in words
});

// Before any other listener of the form, so that they find the new key.
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  storeKey(byId("key").value.trim());
  byId("key").value = "";
  byId("key-form").hidden = true;
});

byId("controls").addEventListener("submit", (event) => event.preventDefault());
byId("controls").addEventListener("input", (event) => {
  showScore();
  clearTimeout(settling);
  settling = setTimeout(segment, event.target.type === "range" ? SETTLE_MS : 0);
});

byId("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(byId("curl").textContent);
  } catch {
    getSelection().selectAllChildren(byId("curl")); // no clipboard without HTTPS
    return;
  }
  byId("copy").textContent = "Copied";
  setTimeout(() => (byId("copy").textContent = "Copy"), 2000);
});

loadModels().then((list) => {
  const described = new Map(list.models.map((model) => [model.name, model]));
  const choice = byId("model");
  choice.replaceChildren(...list.models.map((model) => new Option(model.name)));
  choice.dataset.default = list.default;
  byId("model-field").hidden = list.models.length < 2;
  const useModel = () => {
    const model = described.get(choice.value);
    const classes = model.classes.slice(0, 6).join(", ");
    const more = model.classes.length > 6 ? ` and ${model.classes.length - 6} more` : "";
    byId("finds").textContent = `Finds: ${classes}${more}. Model\u00a0${model.name}\u00a0${model.version}.`;
    byId("score").value = model.min_score;
    showScore();
  };
  choice.addEventListener("input", useModel);
  useModel();
  segment(); // the photo that was chosen meanwhile
});
