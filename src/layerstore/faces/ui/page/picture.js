// Layers on layers: each is a block on the one that it stands on, as wide as all bytes from it upwards. What several
// images share is drawn once, below all of them; what is free above a block are its own bytes.

import { count, el, said, short, size, svg, tell } from "./dom.js";
import { data, nameOf, stackOf } from "./data.js";

const LEAST = 5; // units of width below which blocks are put together
const GROUP = 26; // and how wide they are together
const LETTER = 6.3; // the width of one, about
const NAMES = 8;

export class Picture {
  constructor({ open }) {
    this.open = open;
    this.view = null;
    this.blocks = [];
    this.at = 0;
    this.wanted = "";
    this.drawn = 0;
    this.image = svg("svg", { role: "tree", "aria-label": "Layers, each on the one that it stands on; the lowest are at the bottom", class: "icicle" });
    this.about = el("div", { class: "about" });
    this.out = el("button", { type: "button", hidden: true, click: () => this.leave() }, "Zoom out (Esc)");
    this.node = el("div", { class: "picture" },
      el("p", { class: "legend" },
        [["none", "no image has it"], ["one", "one image"], ["few", "2 to 9 images"], ["many", "10 or more"], ["group", "several small ones: zoom in"]]
          .map(([kind, words]) => el("span", {}, svg("svg", { class: "key", viewBox: "0 0 10 10", "aria-hidden": "true" }, svg("rect", { class: kind, width: 10, height: 10 })), words)),
        this.out),
      el("div", { class: "frame" }, this.image), this.about);
    this.image.addEventListener("keydown", (event) => this.key(event));
    this.image.addEventListener("click", (event) => this.enter(this.of(event)));
    this.image.addEventListener("mouseover", (event) => this.tellOf(this.of(event)));
    this.image.addEventListener("focusin", (event) => {
      this.mark(this.of(event));
      this.tellOf(this.blocks[this.at]);
      this.point();
    });
    this.image.addEventListener("focusout", () => this.cursor.setAttribute("visibility", "hidden"));
    new ResizeObserver(() => this.node.clientWidth && Math.abs(this.node.clientWidth - this.drawn) > 4 && this.draw()).observe(this.node);
  }

  set() {
    this.view = null;
    this.draw();
  }

  filter(wanted) {
    this.wanted = wanted.toLowerCase();
    this.dim();
  }

  draw() {
    const width = Math.max(this.node.clientWidth, 300);
    this.drawn = this.node.clientWidth;
    const roots = data.layers.filter((layer) => layer.on === undefined);
    roots.sort((one, other) => other.all - one.all || one.place - other.place);
    const { parent, among } = this.view ?? { parent: null, among: roots };
    const below = parent ? stackOf({ top: parent.place }) : [];
    this.blocks = below.map((layer, depth) => ({ layer, depth, x: 0, width }));
    const total = among.reduce((sum, layer) => sum + layer.all, 0);
    if (total) this.lay(among, 0, width / total, below.length);
    const rows = this.blocks.reduce((most, block) => Math.max(most, block.depth + (block.group ? block.height : 1)), 0);
    const row = rows > 40 ? 13 : Math.min(Math.max(Math.floor(300 / Math.max(rows, 1)), 22), 46);
    const height = rows * row;
    this.image.setAttribute("viewBox", `0 0 ${width} ${Math.max(height, 1)}`);
    this.image.setAttribute("height", height);
    this.cursor = svg("rect", { class: "cursor", visibility: "hidden" });
    this.image.replaceChildren(...this.blocks.map((block, place) => this.shape(block, place, height, row)), this.cursor);
    this.out.hidden = this.view === null;
    this.mark(this.blocks[this.view ? below.length : 0]);
    this.dim();
    this.about.replaceChildren(el("p", { class: "soft" }, data.layers.length
      ? `${count(data.layers.length, "layer")}, ${size(data.layers.reduce((sum, layer) => sum + layer.weight, 0))} in all. Point at a block, or go to it by keys, to see whose it is.`
      : "There is no layer."));
  }

  lay(layers, x, scale, depth) {
    let group = [], wide = 0;
    const flush = () => {
      if (group.length === 1) this.one(group[0], x, Math.max(wide, 1), scale, depth);
      else if (group.length) this.blocks.push({ group, depth, x, width: wide, height: Math.max(...group.map((layer) => layer.height)) });
      x += wide;
      [group, wide] = [[], 0];
    };
    for (const layer of layers) { // the widest first
      const own = layer.all * scale;
      if (own >= LEAST) {
        this.one(layer, x, own, scale, depth);
        x += own;
        continue;
      }
      group.push(layer);
      wide += own;
      if (wide >= GROUP) flush();
    }
    if (wide >= 1) flush();
  }

  one(layer, x, width, scale, depth) {
    this.blocks.push({ layer, depth, x, width });
    this.lay(layer.above, x, scale, depth + 1);
  }

  shape(block, place, height, row) {
    const { layer, group, depth, x, width } = block;
    const tall = row * (group ? block.height : 1);
    const top = height - depth * row - tall;
    const users = layer?.images.length ?? 0;
    const kind = group ? "group" : users === 0 ? "none" : users === 1 ? "one" : users < 10 ? "few" : "many";
    const room = Math.floor((width - 8) / LETTER);
    const text = group ? `${group.length}` : layer.ends.length ? `${nameOf(layer.ends[0])}${layer.ends.length > 1 ? ` +${layer.ends.length - 1}` : ""}` : size(layer.size);
    const cut = text.length <= room ? text : room > 4 && layer?.ends.length ? `${text.slice(0, room - 1)}…` : "";
    const below = layer?.ends.length && cut && row >= 36 && room > 7 ? size(layer.size) : "";
    return svg("g", { role: "treeitem", "aria-level": depth + 1, "aria-label": this.words(block), tabindex: -1, "data-place": place },
      svg("rect", { class: kind, x: x.toFixed(2), y: top, width: Math.max(width, 1).toFixed(2), height: tall }),
      layer?.damaged && svg("path", { class: "damaged", d: `M${x.toFixed(2)} ${top}h8l-8 8z` }),
      cut && row > 15 && svg("text", { x: (x + 5).toFixed(2), y: top + tall / 2 + (below ? -2 : 4) }, cut),
      below && svg("text", { class: "size", x: (x + 5).toFixed(2), y: top + tall / 2 + 12 }, below));
  }

  words({ layer, group }) {
    if (group) return `${count(group.length, "stack")} of layers, ${size(group.reduce((sum, one) => sum + one.all, 0))}: zoom in`;
    const names = layer.images.slice(0, NAMES).map(nameOf).join(", ");
    const more = layer.images.length > NAMES ? " and others" : "";
    const boxes = layer.containers.length ? `, below ${count(layer.containers.length, "container")}` : "";
    return `Layer ${short(layer.id)}, ${size(layer.size)}, ${layer.images.length ? `in ${count(layer.images.length, "image")}: ${names}${more}` : "in no image"}${boxes}${layer.damaged ? ", damaged" : ""}`;
  }

  tellOf(block) {
    if (!block) return;
    const { layer, group } = block;
    if (group) {
      this.about.replaceChildren(el("p", {}, this.words(block)));
      return;
    }
    const names = layer.images.slice(0, NAMES).map((image) => [el("a", { href: `#/images/${image.id}` }, said(nameOf(image))), " "]);
    const more = layer.images.length - NAMES;
    this.about.replaceChildren(
      el("p", {}, el("a", { href: `#/layers/${layer.id}-${layer.place}` }, `Layer ${short(layer.id)}`), `  ${size(layer.size)}`,
        layer.all > layer.weight && `, with all above it ${size(layer.all)}`,
        layer.places > 1 && `, the same in ${layer.places} stacks`,
        layer.containers.length > 0 && `, below ${count(layer.containers.length, "container")}`,
        layer.damaged && el("strong", {}, " damaged")),
      el("p", {}, layer.images.length ? [`In ${count(layer.images.length, "image")}: `, names, more > 0 && `and ${more} more`] : "No image has it: a container or what builds remember stands on it, or nothing."));
  }

  dim() {
    for (const [place, { layer, group }] of this.blocks.entries()) {
      const images = group ? group.flatMap((one) => one.images) : layer.images;
      const ids = group ?? [layer];
      const fits = !this.wanted || ids.some((one) => one.id.startsWith(this.wanted)) || images.some((image) => image.tags.some((tag) => tag.toLowerCase().includes(this.wanted)) || image.id.startsWith(this.wanted));
      this.image.children[place]?.classList.toggle("dim", !fits);
    }
  }

  of(event) {
    return this.blocks[event.target.closest?.("[data-place]")?.dataset.place];
  }

  mark(block) {
    const place = this.blocks.indexOf(block);
    if (place < 0) return;
    this.image.children[this.at]?.setAttribute("tabindex", -1);
    this.at = place;
    this.image.children[place].setAttribute("tabindex", 0);
  }

  /** Where the keys are, drawn above all blocks, for one's own border is half under its neighbours'. */
  point() {
    const here = this.image.querySelector("g:focus-visible rect");
    this.cursor.setAttribute("visibility", here ? "visible" : "hidden");
    if (here) for (const name of ["x", "y", "width", "height"]) this.cursor.setAttribute(name, here.getAttribute(name));
  }

  focus(block) {
    if (!block) return;
    this.mark(block);
    this.image.children[this.at].focus();
  }

  enter(block) {
    if (!block) return;
    const { layer, group } = block;
    if (layer && (block.width >= this.drawn - 2 || (!layer.above.length && block.width > this.drawn / 3))) {
      this.open(layer);
      return;
    }
    const one = layer ?? group[0];
    this.view = { parent: one.on === undefined ? null : data.layers[one.on], among: group ?? [layer] };
    this.draw();
    this.focus(this.blocks.find((found) => found.layer === one || found.group?.includes(one)));
    tell("Zoomed in");
  }

  /** One step out; false if it is the whole already. */
  leave() {
    if (this.view === null) return false;
    const { parent, among } = this.view;
    this.view = parent ? { parent: parent.on === undefined ? null : data.layers[parent.on], among: [parent] } : null;
    this.draw();
    this.focus(this.blocks.find((found) => found.layer === among[0] || found.group?.includes(among[0])) ?? this.blocks[0]);
    tell("Zoomed out");
    return true;
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const here = this.blocks[this.at];
    if (!here) return;
    const row = (depth) => this.blocks.filter((block) => block.depth === depth).sort((one, other) => one.x - other.x);
    const beside = row(here.depth);
    const place = beside.indexOf(here);
    const middle = here.x + here.width / 2;
    switch (event.key) {
      case "ArrowUp":
        this.focus(row(here.depth + 1).find((block) => block.x >= here.x - 0.01 && block.x < here.x + here.width));
        break;
      case "ArrowDown":
        this.focus(row(here.depth - 1).find((block) => block.x <= middle && middle <= block.x + block.width));
        break;
      case "ArrowLeft": this.focus(beside[place - 1]); break;
      case "ArrowRight": this.focus(beside[place + 1]); break;
      case "Home": this.focus(beside[0]); break;
      case "End": this.focus(beside.at(-1)); break;
      case "Enter": case " ": this.enter(here); break;
      default: return;
    }
    event.preventDefault();
  }
}

