// One image, layer, container or volume: all that is known of it.

import { ask, data, nameOf, stackOf } from "./data.js";
import { bar, count, el, moment, said, short, size, there } from "./dom.js";

const dialog = document.getElementById("details");

function shown(title, kind, ...children) {
  dialog.replaceChildren(
    el("form", { method: "dialog" }, el("button", { "aria-label": "Close" }, "✕")),
    el("h2", { id: "details-title" }, el("span", { class: "soft" }, `${kind} `), said(title)),
    ...children.flat().filter(Boolean));
  dialog.scrollTop = 0;
  if (!dialog.open) dialog.showModal();
}

/** Facts by name; those that are empty are left out. */
function facts(pairs) {
  const told = pairs.filter(([, value]) => value !== undefined && value !== null && value !== "" && !(Array.isArray(value) && !value.length));
  return el("dl", { class: "facts" }, told.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

const code = (text) => el("code", {}, said(text));
const lines = (values) => values?.length ? el("ul", { class: "plain" }, values.map((one) => el("li", {}, code(one)))) : "";
const pairs = (values) => lines(Object.entries(values ?? {}).map(([name, value]) => typeof value === "string" ? `${name}=${value}` : name));
const words = (value) => value === null || value === undefined || !value.length ? "" : code(Array.isArray(value) ? JSON.stringify(value) : value);
const whole = (value) => el("details", {}, el("summary", {}, "Everything, as layerstore inspect tells it"), el("pre", { tabindex: 0 }, JSON.stringify(value, null, 2)));

function images(found) {
  const some = found.slice(0, 200);
  return el("ul", { class: "flow" }, some.map((image) => el("li", {}, el("a", { href: `#/images/${image.id}` }, said(nameOf(image))))),
    found.length > some.length && el("li", {}, `and ${found.length - some.length} more`));
}

function boxes(found) {
  const some = found.slice(0, 200);
  return el("ul", { class: "flow" }, some.map((box) => el("li", {}, el("a", { href: `#/containers/${box.id}` }, said(box.name)))),
    found.length > some.length && el("li", {}, `and ${found.length - some.length} more`));
}

const linkTo = (layer) => el("a", { href: `#/layers/${layer.id}-${layer.place}` }, short(layer.id));

function config(of) {
  return [
    ["Entrypoint", words(of.Entrypoint)], ["Command", words(of.Cmd)], ["User", words(of.User)], ["Folder", words(of.WorkingDir)],
    ["Ports", lines(Object.keys(of.ExposedPorts ?? {}))], ["Volumes", lines(Object.keys(of.Volumes ?? {}))],
    ["Variables", lines(of.Env)], ["Labels", pairs(of.Labels)],
  ];
}

async function image(id) {
  const row = data.images_by_id.get(id);
  const found = await ask("image", { id });
  const of = found.inspect;
  const stack = row ? stackOf(row) : [];
  const largest = Math.max(...found.steps.map((step) => step.size), 1);
  const names = data.containers.filter((box) => found.containers.includes(box.name));
  shown(row ? nameOf(row) : short(id), "Image",
    facts([
      ["ID", code(of.Id)], ["Names", lines(of.RepoTags)], ["Digests", lines(found.digests)],
      ["Made", moment(of.Created)], ["For", [of.Os, of.Architecture, of.Variant].filter(Boolean).join("/")],
      ["Size", [size(of.Size), row?.lacks > 0 && `, ${there(of.Size, row.lacks)}`, row?.unique !== undefined && `, of which ${size(row.unique)} are its own and ${size(row.shared)} shared`]],
      ["Author", of.Author && said(of.Author)], ["Comment", of.Comment && said(of.Comment)],
      ["Containers", names.length ? boxes(names) : "none"],
      ["Built on", found.beneath.length ? images(found.beneath) : ""],
      ...config(of.Config ?? {}),
    ]),
    el("h3", {}, `Lines, the newest first`),
    el("div", { class: "wide" }, el("table", { class: "steps" },
      el("thead", {}, el("tr", {}, ["Line", "Size", "", "Layer", "Shared"].map((title, place) => el("th", { scope: "col", class: place === 1 ? "number" : "" }, title)))),
      el("tbody", {}, found.steps.map((step) => {
        const layer = step.layer ? stack.pop() : undefined;
        return el("tr", {},
          el("td", {}, el("code", {}, said(step.text || "(nothing is said of it)")), step.comment && el("div", { class: "soft" }, said(step.comment))),
          el("td", { class: "number" }, step.layer ? size(step.size) : el("span", { class: "soft" }, "none")),
          el("td", { class: "bar" }, step.layer && bar([["used", step.size / largest]])),
          el("td", {}, layer ? linkTo(layer) : step.layer ? short(step.layer) : ""),
          el("td", {}, layer ? (layer.images.length > 1 ? count(layer.images.length, "image") : "–") : ""));
      })))),
    whole(of));
}

function layer(ident) {
  const [id, place] = ident.split("-");
  const there = data.layers[place];
  const found = there?.id === id ? there : data.layers.find((one) => one.id === id);
  if (!found) throw new Error("There is no such layer any more.");
  const usage = data.space?.layers.find(([other]) => other === id);
  shown(short(found.id), "Layer", facts([
    ["DiffID", code(`sha256:${found.id}`)], ["Size", size(found.size)],
    ["Lazy", found.lacks ? there(found.size, found.lacks) : ""],
    ["With all above", found.all > found.weight ? size(found.all) : ""],
    ["Damaged", found.damaged ? "Yes: layerstore check --repair makes it anew." : ""],
    ["Stands on", found.on === undefined ? "nothing: it is a lowest one" : linkTo(data.layers[found.on])],
    ["Above", found.above.length ? el("ul", { class: "flow" }, found.above.slice(0, 200).map((one) => el("li", {}, linkTo(one)))) : ""],
    ["The same", found.places > 1 ? el("ul", { class: "flow" }, data.layers.filter((one) => one.id === id && one !== found).slice(0, 200).map((one) => el("li", {}, el("a", { href: `#/layers/${one.id}-${one.place}` }, `on ${one.on === undefined ? "nothing" : short(data.layers[one.on].id)}`)))) : ""],
    ["Kept by", usage ? [`${count(usage[2], "image")}, ${count(usage[3], "container")}, ${count(usage[4], "lease")}`] : ""],
    ["Images", found.images.length ? images(found.images) : "none"],
    ["Containers", found.containers.length ? boxes(found.containers) : "none"],
  ]));
}

async function container(id) {
  const row = data.containers_by_id.get(id);
  const { inspect: of } = await ask("container", { id });
  const state = of.State ?? {};
  shown(row?.name ?? short(id), "Container",
    facts([
      ["ID", code(id)], ["State", row && status(row)], ["Image", row?.image && imageOf(row)], ["Made", moment(of.Created)],
      ["Started", row?.started && moment(row.started)], ["Ended", row?.finished && moment(row.finished)],
      ["Error", state.Error && said(state.Error)], ["Process", state.Pid ? String(state.Pid) : ""],
      ["Health", state.Health?.Status ?? ""], ["Written", row?.size === undefined ? "" : size(row.size)],
      ["Kept by", row?.owner && said(row.owner)],
      ["Checkpoints", row?.points.length ? el("ul", { class: "plain" }, row.points.map((point) => el("li", {}, said(point.label), " ", el("span", { class: "soft" }, moment(point.created), point.consistent ? "" : ", while it was written to")))) : "none"],
      ["Mounts", lines((of.Mounts ?? []).map((mount) => `${mount.Name || mount.Source || mount.Type} → ${mount.Destination}${mount.RW === false ? " (read-only)" : ""}`))],
      ["Published", lines(Object.entries(of.NetworkSettings?.Ports ?? {}).map(([port, bound]) => bound?.length ? `${bound.map((one) => `${one.HostIp}:${one.HostPort}`).join(", ")} → ${port}` : port))],
      ...config(of.Config ?? {}),
    ]), whole(of));
}

async function volume(name) {
  const { inspect: of, containers } = await ask("volume", { name });
  const row = data.volumes.find((one) => one.name === name);
  shown(name, "Volume",
    facts([
      ["Lies in", code(of.Mountpoint)], ["Driver", said(of.Driver)], ["Made", moment(of.CreatedAt)],
      ["Size", row?.size === undefined ? "" : size(row.size)],
      ["Containers", containers.length ? boxes(data.containers.filter((box) => containers.includes(box.name))) : "none"],
      ["Labels", pairs(of.Labels)], ["Options", pairs(of.Options)],
    ]), whole(of));
}

export function imageOf(box) {
  const found = data.images.find((one) => one.tags.includes(box.image) || one.id.startsWith(box.image || "?"));
  return found ? el("a", { href: `#/images/${found.id}` }, said(box.image)) : said(box.image || "none");
}

/** What a container does, with a sign of its own, so that the colour is not all. */
export function status(box) {
  const sign = { running: "●", paused: "◐", mounted: "◆", exited: "○", dead: "✕" }[box.state] ?? "·";
  const more = [
    box.state === "exited" && `(${box.exit})`, box.health, box.mounted && box.state !== "mounted" && "mounted",
  ].filter(Boolean).join(" ");
  return el("span", { class: `state ${/^[a-z]+$/.test(box.state) ? box.state : ""}` }, el("span", { "aria-hidden": "true" }, `${sign} `), box.state, more && ` ${more}`);
}

/** Show what an address like #/images/ID means. */
export async function open(section, ident) {
  await { images: image, layers: layer, containers: container, volumes: volume }[section](ident);
}

export function close() {
  if (dialog.open) dialog.close();
}

export { dialog };
