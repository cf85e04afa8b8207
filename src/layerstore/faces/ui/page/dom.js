// What is shown, made of nodes: no text of the store ever becomes markup. And numbers and times in words.

const SVG = "http://www.w3.org/2000/svg";

// Letters that a screen obeys instead of showing: control characters, and those that turn the order of others around.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

export function plain(text) {
  return String(text).replace(UNSEEN, (letter) => `\\u{${letter.charCodeAt(0).toString(16)}}`);
}

function made(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, plain(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : plain(child));
  }
  return node;
}

/** An element: attributes by name, functions as what listens to an event; children are nodes and texts. */
export function el(tag, attributes = {}, ...children) {
  return made(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return made(document.createElementNS(SVG, tag), attributes, children);
}

/** Text that somebody else has written: it stands by itself, in whatever direction it runs. */
export function said(text, attributes = {}) {
  return el("bdi", attributes, text);
}

/** Bytes as docker shows them: 1.22kB. */
export function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let value = bytes, unit = 0;
  while (Number(value.toPrecision(3)) >= 1000 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${Number(value.toPrecision(3))}${units[unit]}`;
}

export function memory(bytes) {
  return `${Number((bytes / 2 ** 30).toPrecision(4))}GiB`;
}

export function count(number, thing, things = `${thing}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? thing : things}`;
}

/** `2 hours ago`, as docker says it; "" for what has no time. */
export function ago(text) {
  const then = Date.parse(text);
  if (Number.isNaN(then) || then <= 0) return "";
  const seconds = Math.floor((Date.now() - then) / 1000);
  const steps = [
    [2, 1, "a second"], [60, 1, "seconds"], [120, 1, "a minute"], [3600, 60, "minutes"], [5400, 1, "an hour"],
    [172800, 3600, "hours"], [1209600, 86400, "days"], [5184000, 604800, "weeks"], [63072000, 2592000, "months"],
    [Infinity, 31536000, "years"],
  ];
  if (seconds < 0) return "in the future";
  const [, unit, word] = steps.find(([most]) => seconds < most);
  return `${/^an? /.test(word) ? "" : `${Math.floor(seconds / unit)} `}${word} ago`;
}

export function moment(text) {
  const then = Date.parse(text);
  if (Number.isNaN(then) || then <= 0) return el("span", { class: "soft" }, "–");
  return el("time", { datetime: text, title: new Date(then).toLocaleString() }, ago(text));
}

export const short = (id) => id.slice(0, 12);

/** How much of something has come, of which so many bytes lack. */
export const there = (whole, lacks) => `${Math.floor((100 * (whole - lacks)) / whole)}% there`;

/** A line of parts, each a class and how much of the whole it is; what it says stands in words beside it. */
export function bar(parts) {
  return el("div", { class: "bar", "aria-hidden": "true" }, parts.map(([kind, part]) => {
    const node = el("span", { class: kind });
    node.style.width = `${(100 * part).toFixed(2)}%`;
    return node;
  }));
}

/** Tell those who hear the page. */
export function tell(text) {
  document.getElementById("said").textContent = plain(text);
}
