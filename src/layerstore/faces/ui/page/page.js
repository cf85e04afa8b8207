// The page: sections, keys, what there is in all, and the look now and then whether the store has changed.

import { ask, data, load, nameOf, takeToken } from "./data.js";
import { close, dialog, open, status } from "./details.js";
import { bar, count, el, memory, moment, said, short, size, tell, there } from "./dom.js";
import { Picture } from "./picture.js";
import { Table } from "./table.js";

const SECTIONS = ["overview", "images", "layers", "containers", "volumes"];
const LOOK = 5000; // milliseconds between two looks whether the store has changed
const byId = (id) => document.getElementById(id);
const search = byId("search");

const unknown = () => el("span", { class: "soft" }, "…");
const bytes = (value) => (value === undefined ? unknown() : size(value));
const soft = (text) => el("span", { class: "soft" }, text);
const go = (section, ident) => { location.hash = `#/${section}/${encodeURIComponent(ident)}`; };

function names(image) {
  const lazy = image.lacks > 0 && soft(` lazy, ${there(image.size, image.lacks)}`);
  if (!image.tags.length) return [soft("<none>"), lazy];
  return [said(image.tags[0]), image.tags.length > 1 && soft(` +${image.tags.length - 1}`), lazy];
}

const tables = {
  images: new Table({
    label: "Images", empty: "There is no image: layerstore load, pull or build brings one.",
    text: (image) => [...(image.tags.length ? image.tags : ["<none>"]), image.id, image.platform, image.boxes === 0 && "unused", image.lacks > 0 && "lazy"].filter(Boolean).join(" "), open: (image) => go("images", image.id),
    columns: [
      { title: "Name", cell: names, by: (image) => image.tags[0] ?? "", kind: "name" },
      { title: "ID", cell: (image) => el("code", {}, short(image.id)), kind: "later" },
      { title: "Made", cell: (image) => moment(image.created), by: (image) => -(Date.parse(image.created) || 0) },
      { title: "For", cell: (image) => image.platform, kind: "last" },
      { title: "Size", cell: (image) => size(image.size), by: (image) => image.size, kind: "number" },
      { title: "Shared", cell: (image) => bytes(image.shared), by: (image) => image.shared, kind: "number later" },
      { title: "Its own", cell: (image) => bytes(image.unique), by: (image) => image.unique, kind: "number later" },
      { title: "Containers", cell: (image) => (image.boxes === undefined ? unknown() : image.boxes || soft("–")), by: (image) => image.boxes, kind: "number later" },
    ],
  }),
  layers: new Table({
    label: "Layers, each once", empty: "There is no layer.",
    text: (layer) => [layer.id, ...(layer.first?.images ?? []).flatMap((image) => image.tags)].join(" "), open: (layer) => layer.first && go("layers", `${layer.id}-${layer.first.place}`),
    columns: [
      { title: "Layer", cell: (layer) => [el("code", {}, short(layer.id)), layer.first?.damaged && el("strong", {}, " damaged")] },
      { title: "Size", cell: (layer) => size(layer.size), by: (layer) => layer.size, kind: "number" },
      { title: "Images", cell: (layer) => layer.images || soft("–"), by: (layer) => layer.images, kind: "number" },
      { title: "Containers", cell: (layer) => layer.containers || soft("–"), by: (layer) => layer.containers, kind: "number later" },
      { title: "Leases", cell: (layer) => layer.leases || soft("–"), by: (layer) => layer.leases, kind: "number later" },
      { title: "In", cell: (layer) => said(layer.of), kind: "last" },
    ],
  }),
  containers: new Table({
    label: "Containers", empty: "There is no container: layerstore run or create makes one.",
    text: (box) => [box.name, box.id, box.image, box.state, box.owner, box.busy === false && "unused", ...box.points.map((point) => point.label)].filter(Boolean).join(" "),
    open: (box) => go("containers", box.id),
    columns: [
      { title: "Name", cell: (box) => [said(box.name), box.owner && soft(` of ${box.owner}`)], by: (box) => box.name, kind: "name" },
      { title: "State", cell: status, by: (box) => box.state },
      { title: "Image", cell: (box) => said(box.image), by: (box) => box.image, kind: "later" },
      { title: "Made", cell: (box) => moment(box.created), by: (box) => -Date.parse(box.created), kind: "later" },
      { title: "Checkpoints", cell: (box) => box.points.length || soft("–"), by: (box) => box.points.length, kind: "number last" },
      { title: "Written", cell: (box) => bytes(box.size), by: (box) => box.size, kind: "number" },
    ],
  }),
  volumes: new Table({
    label: "Volumes", empty: "There is no volume: layerstore volume create makes one.",
    text: (volume) => [volume.name, volume.driver, volume.anonymous && "anonymous", volume.boxes === 0 && "unused"].filter(Boolean).join(" "), open: (volume) => go("volumes", volume.name),
    columns: [
      { title: "Name", cell: (volume) => [said(volume.name), volume.anonymous && soft(" anonymous")], by: (volume) => volume.name, kind: "name" },
      { title: "Made", cell: (volume) => moment(volume.created), by: (volume) => -Date.parse(volume.created) },
      { title: "Driver", cell: (volume) => said(volume.driver), kind: "last" },
      { title: "Containers", cell: (volume) => (volume.boxes === undefined ? unknown() : volume.boxes || soft("–")), by: (volume) => volume.boxes, kind: "number later" },
      { title: "Size", cell: (volume) => bytes(volume.size), by: (volume) => volume.size, kind: "number" },
    ],
  }),
};
const picture = new Picture({ open: (layer) => go("layers", `${layer.id}-${layer.place}`) });

const FREES = {
  Images: "layerstore image prune --all", Containers: "layerstore container prune", "Local Volumes": "layerstore volume prune --all",
  "Build Cache": "layerstore builder prune --all", "Kept blobs": "layerstore prune", "Partial blobs": "layerstore prune",
};

const LISTED = { Images: "images", Containers: "containers", "Local Volumes": "volumes" };

// --- the overview

const space = el("div"), facts = el("div"), health = el("div", { role: "status" });
const check = el("button", { type: "button", click: looked }, "Check the store");

async function looked() {
  check.disabled = true;
  health.replaceChildren(el("p", { class: "soft" }, "Looking at everything…"));
  try {
    const found = await ask("check");
    health.replaceChildren(found.count
      ? el("div", {}, el("p", {}, el("strong", {}, `${count(found.count, "problem")}.`), " layerstore check --repair does what can be done."),
        el("ul", { class: "problems" }, found.problems.map((one) => el("li", {}, el("strong", {}, one.kind), ": ", said(one.text), one.affects.length > 0 && soft(` It takes ${one.affects.join(", ")}.`)))))
      : el("p", { class: "good" }, `✓ Nothing is missing, damaged or left over (${new Date().toLocaleTimeString()}).`));
  } catch (error) {
    health.replaceChildren(el("p", { class: "bad" }, error.message));
  }
  check.disabled = false;
}

byId("overview").append(
  el("div", { class: "cards" },
    el("article", { class: "broad" }, el("h2", {}, "What takes the room"), space),
    el("article", {}, el("h2", {}, "The store"), facts),
    el("article", {}, el("h2", {}, "Health"),
      el("p", { class: "soft" }, "All files and rows are looked at, without reading what is in the files; in a large store that takes a while."), check, health)));
byId("images").append(tables.images.node);
byId("layers").append(picture.node, el("h2", {}, "Each layer once, the largest first"), tables.layers.node);
byId("containers").append(tables.containers.node);
byId("volumes").append(tables.volumes.node);

function paintSpace() {
  if (!data.space) {
    space.replaceChildren(el("p", { class: "soft" }, "Being counted…"));
    return;
  }
  const { kinds } = data.space;
  const largest = Math.max(...kinds.map((kind) => kind.size), 1);
  const free = kinds.reduce((sum, kind) => sum + kind.free, 0);
  space.replaceChildren(
    el("div", { class: "wide" }, el("table", {},
      el("thead", {}, el("tr", {}, [["", ""], ["There", "number"], ["In use", "number later"], ["Size", "number"], ["", "bar last"], ["Can go", "number"], ["By", "later"]].map(([title, kind]) => el("th", { scope: "col", class: kind }, title)))),
      el("tbody", {}, kinds.map((kind) => el("tr", {},
        el("th", { scope: "row" }, LISTED[kind.name] ? el("a", { href: `#/${LISTED[kind.name]}` }, kind.name.replace("Local ", "")) : kind.name), el("td", { class: "number" }, kind.total.toLocaleString("en")), el("td", { class: "number later" }, kind.active.toLocaleString("en")),
        el("td", { class: "number" }, size(kind.size)), el("td", { class: "bar last" }, bar([["used", (kind.size - kind.free) / largest], ["free", kind.free / largest]])),
        el("td", { class: "number" }, kind.free ? size(kind.free) : soft("–")),
        el("td", { class: "later" }, kind.free && FREES[kind.name] ? el("code", {}, FREES[kind.name]) : "")))))),
    el("p", { class: "soft" }, free ? `${size(free)} belong to nothing that runs, is mounted or is needed by what does: the commands ask first. In the lists, search for unused to see what that is.` : "Nothing can be freed without removing what is in use."));
}

function paintFacts() {
  const info = data.info;
  if (!info) return;
  byId("where").textContent = info.data_root;
  document.title = `${info.data_root} – layerstore`;
  const pairs = [
    ["Folder", el("code", {}, said(info.data_root))], ["Driver", el("strong", {}, info.driver)], ...info.status.map(([name, value]) => [name, said(value)]),
    ["Migration", info.migration && `to ${info.migration}, not finished: layerstore migrate ${info.migration} goes on`],
    ["Former home", info.former], ["Attached", info.attached.length > 0 && info.attached.map((one) => el("div", {}, el("code", {}, said(one))))], ...info.broken.map(([name, why]) => [`${name} cannot work`, said(why)]),
    ["Mounted", info.mounted ? count(info.mounted, "container") : ""],
    ["Host", said(info.name)], ["System", `${info.system}, Linux ${info.kernel}, ${info.architecture}`],
    ["Machine", `${count(info.cpus, "processor")}, ${memory(info.memory)}`], ["layerstore", info.version], ["Store", el("code", {}, short(info.id))],
  ];
  facts.replaceChildren(el("dl", { class: "facts" }, pairs.filter(([, value]) => value).map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
    info.refusals.length > 0 && el("details", {}, el("summary", {}, "Why no other driver"), el("dl", { class: "facts" }, info.refusals.map(([name, why]) => [el("dt", {}, name), el("dd", {}, said(why))]))) || "");
}

function paint() {
  paintFacts();
  paintSpace();
  tables.images.set(data.images);
  tables.containers.set(data.containers);
  tables.volumes.set(data.volumes);
  const first = new Map();
  for (const layer of data.layers) if (!first.has(layer.id)) first.set(layer.id, layer);
  tables.layers.set((data.space?.layers ?? []).map(([id, bytes_, images, containers, leases]) => {
    const found = first.get(id);
    const some = found?.images.slice(0, 3).map(nameOf).join(", ") ?? "";
    return { id, size: bytes_, images, containers, leases, first: found, of: found?.images.length > 3 ? `${some}, …` : some };
  }));
  if (!byId("layers").hidden) picture.set();
  else picture.stale = true;
  const totals = { images: data.total.images, layers: data.info?.layers, containers: data.info?.containers, volumes: data.total.volumes };
  for (const link of document.querySelectorAll("nav a")) {
    const total = totals[link.dataset.section];
    if (total !== undefined) link.querySelector(".count").textContent = total.toLocaleString("en");
  }
  document.documentElement.dataset.painted = data.space ? "all" : "first";
}

// --- getting about

let section = "", back = null;

async function route() {
  const [, wanted, ident] = /^#\/(\w+)(?:\/(.+))?$/.exec(location.hash) ?? [];
  const next = SECTIONS.includes(wanted) ? wanted : "overview";
  if (next !== section) {
    section = next;
    for (const name of SECTIONS) byId(name).hidden = name !== section;
    for (const link of document.querySelectorAll("nav a")) {
      if (link.dataset.section === section) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    search.disabled = section === "overview";
    if (!ident) scrollTo(0, 0);
    filter();
    if (section === "layers" && picture.stale) {
      picture.stale = false;
      picture.set();
    }
  }
  if (!ident || section === "overview") {
    close();
    return;
  }
  if (!dialog.open) back = document.activeElement;
  try {
    await open(section, decodeURIComponent(ident));
  } catch (error) {
    close();
    fail(error);
  }
}

dialog.addEventListener("close", () => {
  if (location.hash !== `#/${section}`) history.replaceState(null, "", `#/${section}`);
  if (back?.isConnected) back.focus();
  else tables[section]?.focus();
});
dialog.addEventListener("click", (event) => event.target === dialog && close()); // beside it

function filter() {
  const wanted = search.value.trim();
  tables[section]?.filter(wanted);
  if (section === "layers") picture.filter(wanted);
  if (wanted && tables[section]) tell(`${tables[section].shown.length} of ${tables[section].rows.length}`);
  byId("search").classList.toggle("active", Boolean(wanted));
}

function notice(text, kind, ...buttons) {
  const box = byId("notice");
  box.hidden = !text;
  box.className = kind;
  box.replaceChildren(text, ...buttons);
}

function fail(error) {
  if (error.status === 401) {
    askToken();
    return;
  }
  notice(error.message, "bad");
}

function askToken() {
  const box = byId("token");
  if (box.open) return;
  box.showModal();
  box.addEventListener("close", () => {
    takeToken(new FormData(box.querySelector("form")).get("token").trim().replace(/^.*#token=/, ""));
    reload();
  }, { once: true });
}

let loading = false;

async function reload() {
  if (loading) return;
  loading = true;
  byId("reload").disabled = true;
  try {
    await load(paint);
    notice("");
    if (document.documentElement.dataset.again) tell("The store was read again");
    document.documentElement.dataset.again = "yes";
    if (dialog.open) await route();
  } catch (error) {
    fail(error);
  }
  byId("reload").disabled = false;
  loading = false;
}

async function look() {
  if (document.hidden || loading || !data.version || byId("token").open) return;
  try {
    const { version, containers } = await ask("version");
    if ((version !== data.version || containers !== data.boxes_version) && !loading) notice("The store has changed. ", "changed", el("button", { type: "button", click: reload }, "Reload (r)"));
    else if (byId("notice").classList.contains("bad")) notice("");
  } catch (error) {
    fail(error);
  }
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, textarea");
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) {
    if (typing || search.value) {
      search.value = "";
      filter();
      if (typing) leaveSearch();
    } else if (section === "layers") picture.leave();
    return;
  }
  if (typing) {
    if (event.target === search && (event.key === "Enter" || event.key === "ArrowDown")) {
      leaveSearch();
      event.preventDefault();
    }
    return;
  }
  if (event.key === "?" && !byId("token").open) byId("keys").open ? byId("keys").close() : byId("keys").showModal();
  else if (document.querySelector("dialog[open]")) return;
  else if (event.key === "/") {
    if (section === "overview") turn("images");
    search.focus();
  } else if (event.key === "r") reload();
  else if ("12345".includes(event.key)) {
    turn(SECTIONS[event.key - 1]);
    begin();
  } else if ((event.key === "ArrowDown" || event.key === "j") && [document.body, byId("main")].includes(document.activeElement)) begin();
  else return;
  event.preventDefault();
});

/** Show a section at once: the address tells of it only a moment later, and the next key may come before. */
function turn(name) {
  location.hash = `#/${name}`;
  route();
}

/** Go to the first thing of a section. */
function begin() {
  if (section === "layers" && picture.blocks.length) picture.focus(picture.blocks[picture.at]);
  else if (tables[section]?.shown.length) tables[section].focus();
  else byId("main").focus({ preventScroll: true }); // or its top would come to lie below the header, which stays
}

function leaveSearch() {
  if (tables[section]?.shown.length) tables[section].focus(0);
  else search.blur();
}

search.addEventListener("input", filter);
byId("reload").addEventListener("click", reload);
byId("help").addEventListener("click", () => byId("keys").showModal());
addEventListener("hashchange", () => {
  if (location.hash.startsWith("#token=")) {
    takeToken();
    reload();
  }
  route();
});
document.addEventListener("visibilitychange", look);
setInterval(look, LOOK);
takeToken();
route();
reload();
