// The page's script. Gradio runs it once, with `element` (its own part of the page) and `props.value` (facts of the server).
const root = element.querySelector(".nls"), facts = props.value;
const find = (name) => root.querySelector(name);
const canvas = find(".picture"), context = canvas.getContext("2d", { willReadFrequently: true });
const made = (tag, more = {}, ...inside) => {
  const node = Object.assign(document.createElement(tag), more);
  node.append(...inside);
  return node;
};
const percent = (share) => (share > 0 && share < 0.001 ? "< 0.1" : (100 * share).toFixed(1)) + " %";
const LARGEST_DOWNLOAD = 2 ** 29;
let current = null; // the answer on the page: token, result, photograph and arrays
let asked = 0; // counts what was begun, so that what comes late is dropped
let running = null; // the token of the photograph that is being labelled
let place = null; // the pixel under the pointer, in pixels of the canvas
const off = new Set(); // names of classes that are not shown

find(".models").textContent = facts.models.map((m) => `${m.name} (${m.classes.length} classes)`).join("  and  ");

// --- Asking the server ---------------------------------------------------------------------------------------------

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  if (answer.ok) return answer;
  let text = `The server answered ${answer.status}.`;
  try {
    text = (await answer.json()).error ?? text;
  } catch { /* a proxy's page, perhaps */ }
  throw new Error(text);
}

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

function say(words, progress = null) {
  find(".words").textContent = words;
  find(".status progress").hidden = progress === null;
  if (progress !== null && progress >= 0) find(".status progress").value = progress;
  else find(".status progress").removeAttribute("value");
  find(".cancel").hidden = progress === null;
}

function complain(error) {
  find(".error").textContent = error.message;
  find(".error").hidden = false;
  say(current ? `${current.result.name}, as before` : "No photograph yet.");
  root.dataset.state = "failed";
}

async function label(file) {
  const mine = ++asked;
  cancel();
  find(".error").hidden = true;
  root.dataset.state = "busy";
  const name = file.name || "photograph.png";
  try {
    if (file.size > facts.bytes) throw new Error(`${name} has more than ${facts.megabytes} megabytes: make it smaller.`);
    say(`Sending ${name} …`, -1);
    const sent = await ask(`page/photographs?name=${encodeURIComponent(name)}`, {
      method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } });
    const token = (await sent.json()).token;
    if (mine !== asked) return void fetch(`page/photographs/${token}`, { method: "DELETE" });
    running = token;
    for (let wait = 120; ; wait = Math.min(600, wait * 1.3)) {
      const found = await (await ask(`page/photographs/${token}`)).json();
      if (mine !== asked) return;
      if (found.state === "waiting") say("Waiting in line …", -1);
      if (found.state === "running") {
        const begun = Math.max(0, found.done - 1);
        say(found.total > 1 ? `Labelling: part ${found.done} of ${found.total}` : "Labelling …", found.total > 1 ? begun / found.total : -1);
      }
      if (found.state === "failed") throw new Error(found.error);
      if (found.state === "cancelled") {
        say("Cancelled.");
        root.dataset.state = "cancelled";
        return;
      }
      if (found.state === "done") {
        running = null;
        await show(token, found.result, mine);
        return;
      }
      await pause(wait);
    }
  } catch (error) {
    if (mine === asked) complain(error);
  } finally {
    if (mine === asked) running = null;
  }
}

function cancel() {
  if (running) fetch(`page/photographs/${running}`, { method: "DELETE", keepalive: true }).catch(() => {});
  running = null;
}

async function show(token, result, mine) {
  say("Fetching the answer …", -1);
  const base = `page/photographs/${token}`;
  const bytes = async (path) => (await ask(path)).arrayBuffer();
  const picture = new Image();
  picture.src = `${base}/photograph.jpg`;
  const arrays = Promise.all(result.models.map(async (m, n) => {
    const [classes, probability] = await Promise.all([bytes(`${base}/${n}/classes.bin`), bytes(`${base}/${n}/probability.bin`)]);
    const wide = classes.byteLength > probability.byteLength;
    return { classes: wide ? new Uint16Array(classes) : new Uint8Array(classes), probability: new Uint8Array(probability) };
  }));
  const models = await arrays;
  await picture.decode();
  if (mine !== asked) return;
  const { width, height } = result.shown;
  Object.assign(canvas, { width, height });
  canvas.style.imageRendering = width < 700 ? "pixelated" : "auto";
  canvas.style.setProperty("--aspect", width / height);
  context.drawImage(picture, 0, 0, width, height);
  current = { token, base, result, models, width, height, photograph: context.getImageData(0, 0, width, height) };
  place = null;
  find(".explained").replaceChildren();
  find(".found").hidden = false;
  find(".compare").hidden = models.length < 2;
  const one = result.models[0], differs = result.width !== width;
  find(".facts").textContent = `${result.width} × ${result.height} pixels, seen: ${one.seen}.`
    + (differs ? ` Drawn here at ${width} × ${height}; downloads have the full size.` : "");
  legend();
  downloads();
  paint();
  say(`${result.name}: ${one.shares.slice(0, 3).map((s) => `${s.name} ${percent(s.share)}`).join(", ")}`);
  root.dataset.state = "done";
}

// --- Drawing -------------------------------------------------------------------------------------------------------

const colours = facts.models.map((m) => m.colours.map((c) => [1, 3, 5].map((at) => parseInt(c.slice(at, at + 2), 16))));
const edge = () => (current.models.length > 1 ? Math.round((current.width * find(".split").value) / 100) : current.width);

function paint() {
  if (!current) return;
  const { width, height, photograph, models } = current;
  const out = new ImageData(new Uint8ClampedArray(photograph.data), width, height), data = out.data;
  const opacity = find(".opacity").value / 100, split = edge();
  const below = find(".uncertain").checked ? (find(".below").value / 100) * 255 : -1;
  const hidden = facts.models.map((m) => m.classes.map((name) => off.has(name)));
  const period = Math.max(4, Math.round(width / 110));
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const n = x < split ? 0 : 1, c = models[n].classes[i], at = 4 * i;
      if (!hidden[n][c]) {
        const rgb = colours[n][c];
        for (let k = 0; k < 3; k++) data[at + k] += (rgb[k] - data[at + k]) * opacity;
      }
      if (models[n].probability[i] < below) { // stripes, which every eye sees on every colour
        const ink = (x + y) % (2 * period) < period ? 255 : 0;
        for (let k = 0; k < 3; k++) data[at + k] += (ink - data[at + k]) * 0.65;
      }
    }
  }
  context.putImageData(out, 0, 0);
  const line = Math.max(1, width / 500);
  if (models.length > 1) {
    context.fillStyle = "#fff";
    context.fillRect(split - line, 0, 2 * line, height);
    context.fillStyle = "#000";
    context.fillRect(split - line / 2, 0, line, height);
  }
  if (place) {
    const [x, y] = place, arm = Math.max(6, width / 60);
    for (const [style, thick] of [["#fff", 3 * line], ["#000", 1.2 * line]]) {
      Object.assign(context, { strokeStyle: style, lineWidth: thick });
      context.beginPath();
      context.moveTo(x + 0.5 - arm, y + 0.5);
      context.lineTo(x + 0.5 + arm, y + 0.5);
      context.moveTo(x + 0.5, y + 0.5 - arm);
      context.lineTo(x + 0.5, y + 0.5 + arm);
      context.stroke();
    }
  }
}

let waiting = false;
function soon() {
  if (!waiting) requestAnimationFrame(() => { waiting = false; paint(); });
  waiting = true;
}

const full = ([x, y]) => [Math.floor(((x + 0.5) * current.result.width) / current.width), Math.floor(((y + 0.5) * current.result.height) / current.height)];

function read(at) {
  const i = at[1] * current.width + at[0], [x, y] = full(at);
  const said = current.models.map((m, n) => {
    const words = `${facts.models[n].classes[m.classes[i]]}, ${Math.round((100 * m.probability[i]) / 255)} %`;
    return current.models.length > 1 ? `${facts.models[n].name}: ${words}` : words;
  });
  find(".pointer").textContent = `x ${x}, y ${y}: ${said.join("; ")}`;
}

function pixelOf(event) {
  const box = canvas.getBoundingClientRect();
  const at = [(event.clientX - box.left) / box.width * current.width, (event.clientY - box.top) / box.height * current.height];
  return [Math.min(current.width - 1, Math.max(0, Math.floor(at[0]))), Math.min(current.height - 1, Math.max(0, Math.floor(at[1])))];
}

canvas.addEventListener("pointermove", (event) => current && read(pixelOf(event)));
canvas.addEventListener("click", (event) => { if (current) explain(pixelOf(event)); });
canvas.addEventListener("keydown", (event) => {
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }, step = steps[event.key];
  if (!current) return;
  if (step) {
    const far = event.shiftKey ? 10 : 1, [x, y] = place ?? [current.width >> 1, current.height >> 1];
    place = [Math.min(current.width - 1, Math.max(0, x + far * step[0])), Math.min(current.height - 1, Math.max(0, y + far * step[1]))];
    read(place);
    soon();
    event.preventDefault();
  } else if (event.key === "Enter" || event.key === " ") {
    explain(place ?? [current.width >> 1, current.height >> 1]);
    event.preventDefault();
  }
});

// --- What a pixel attends to ---------------------------------------------------------------------------------------

async function explain(at) {
  const mine = current, box = find(".explained"), [x, y] = full(at);
  place = at;
  read(at);
  soon();
  box.dataset.state = "busy";
  box.replaceChildren(made("p", { className: "hint", textContent: `Looking at what x ${x}, y ${y} attends to …` }));
  try {
    const found = await (await ask(`${mine.base}/pixel?x=${x}&y=${y}`)).json();
    if (mine !== current || place !== at) return;
    const parts = [made("h2", { textContent: `What x ${x}, y ${y} attends to` })];
    for (const model of found.models) {
      if (found.models.length > 1) parts.push(made("h3", { textContent: model.name }));
      if (model.reason) parts.push(made("p", { className: "reason", textContent: `${model.reason}.` }));
      for (const shown of model.pictures) {
        const list = made("ol", {}, ...shown.lines.map((line) => made("li", { textContent: line })));
        const image = made("img", { src: shown.image, alt: shown.alt });
        parts.push(made("figure", {}, made("figcaption", { textContent: shown.caption }), ...(shown.lines.length ? [list] : []),
          made("div", { className: "wide", tabIndex: 0 }, image)));
      }
    }
    box.replaceChildren(...parts);
    box.dataset.state = "done";
    if (matchMedia("(max-width: 48rem)").matches) box.scrollIntoView({ behavior: "smooth" }); // it lies far below
  } catch (error) {
    if (mine !== current || place !== at) return;
    box.replaceChildren(made("p", { className: "error", textContent: error.message }));
    box.dataset.state = "failed";
  }
}

// --- Legend and downloads ------------------------------------------------------------------------------------------

function legend() {
  const shares = current.result.models.map((m) => new Map(m.shares.map((s) => [s.name, s.share])));
  const known = new Map();
  facts.models.forEach((m) => m.classes.forEach((name, n) => known.has(name) || known.set(name, m.colours[n])));
  const largest = (name) => Math.max(...shares.map((s) => s.get(name) ?? 0));
  const names = [...known.keys()].sort((a, b) => largest(b) - largest(a));
  const heads = current.result.models.map((m) => made("th", { className: "number", textContent: shares.length > 1 ? m.name : "share" }));
  find(".legend thead").replaceChildren(made("tr", {}, made("th", { textContent: "class" }), ...heads));
  find(".legend tbody").replaceChildren(...names.map((name) => {
    const box = made("input", { type: "checkbox", checked: !off.has(name), value: name });
    const swatch = made("span", { className: "swatch" });
    swatch.style.background = known.get(name);
    const cells = shares.map((s) => made("td", { className: "number", textContent: s.has(name) ? percent(s.get(name)) : "–" }));
    return made("tr", { className: largest(name) ? "" : "absent" }, made("th", { scope: "row" }, made("label", {}, box, swatch, made("span", { textContent: name }))), ...cells);
  }));
}

find(".legend").addEventListener("change", (event) => {
  event.target.checked ? off.delete(event.target.value) : off.add(event.target.value);
  soon();
});
for (const [name, shown] of [[".all", true], [".none", false]]) {
  find(name).addEventListener("click", () => {
    for (const box of root.querySelectorAll(".legend input")) {
      box.checked = shown;
      shown ? off.delete(box.value) : off.add(box.value);
    }
    soon();
  });
}

function downloads() {
  const files = [["mask.png", "Mask"], ["overlay.png", "Overlay"], ["probabilities.npz", "Probabilities"], ["shares.csv", "Shares (CSV)"]];
  const pixels = current.result.width * current.result.height;
  find(".downloads").replaceChildren(...current.result.models.flatMap((model, n) => {
    const large = 4 * pixels * facts.models[n].classes.length > LARGEST_DOWNLOAD;
    const links = files.filter(([file]) => !(large && file.endsWith(".npz"))).map(([file, text]) =>
      made("li", {}, made("a", { className: "button", href: `${current.base}/${n}/${file}`, textContent: text, download: "" })));
    const note = large ? [made("p", { className: "hint", textContent: "The probabilities would be too large: use nonlocalseg predict --probabilities." })] : [];
    return [...(current.models.length > 1 ? [made("h3", { textContent: model.name })] : []), made("ul", {}, ...links), ...note];
  }));
}

find(".downloads").addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (link?.href.includes("overlay.png")) link.href = `${link.getAttribute("href").split("?")[0]}?opacity=${find(".opacity").value / 100}`;
});

// --- Ways in -------------------------------------------------------------------------------------------------------

for (const name of [".opacity", ".split", ".uncertain", ".below"]) find(name).addEventListener("input", soon);
find(".below").addEventListener("input", () => (find(".percent").textContent = `${find(".below").value} %`));
find(".file").addEventListener("change", (event) => {
  if (event.target.files[0]) label(event.target.files[0]);
  event.target.value = "";
});
find("label.button").addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === " ") { find(".file").click(); event.preventDefault(); }
});
find(".cancel").addEventListener("click", () => {
  asked++;
  cancel();
  say("Cancelled.");
  root.dataset.state = "cancelled";
});
find(".theme").addEventListener("click", () => document.body.classList.toggle("dark"));
const images = (list) => [...(list ?? [])].find((file) => file.type.startsWith("image/")) ?? list?.[0];
document.addEventListener("paste", (event) => {
  const file = images(event.clipboardData?.files);
  if (file) label(file);
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    root.classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer?.files.length) label(images(event.dataTransfer.files));
  });
}
addEventListener("pagehide", cancel);

for (let number = 0; number < facts.examples; number++) {
  const path = `page/examples/${number}.png`;
  const button = made("button", { type: "button" }, made("img", { src: path, alt: `Drawn scene ${number + 1}` }));
  button.addEventListener("click", async () => {
    try {
      label(new File([await (await ask(path)).blob()], `scene-${number + 1}.png`, { type: "image/png" }));
    } catch (error) {
      complain(error);
    }
  });
  find(".examples").append(button);
}

// --- The camera ----------------------------------------------------------------------------------------------------

const booth = find(".booth"), video = find(".booth video");
find(".camera").addEventListener("click", async () => {
  try {
    if (!navigator.mediaDevices) throw new Error("This browser gives a page its camera only on this machine or over https.");
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 }, facingMode: "environment" } });
    booth.showModal();
    await video.play();
  } catch (error) {
    complain(new Error(error.name === "Error" ? error.message : "There is no camera, or this page may not use it."));
  }
});
booth.addEventListener("close", () => video.srcObject?.getTracks().forEach((track) => track.stop()));
find(".leave").addEventListener("click", () => booth.close());
find(".take").addEventListener("click", () => {
  const still = made("canvas", { width: video.videoWidth, height: video.videoHeight });
  still.getContext("2d").drawImage(video, 0, 0);
  booth.close();
  still.toBlob((blob) => label(new File([blob], "camera.png", { type: "image/png" })), "image/png");
});
