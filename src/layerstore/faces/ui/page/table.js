// A list: rows that are made as they are looked at, sorted by a column, moved in by keys.

import { el, tell } from "./dom.js";

const AT_ONCE = 100;

export class Table {
  /** `columns`: {title, cell, by, kind}; `by` is what a column is sorted by; `text`: what is searched; `open`: Enter. */
  constructor({ label, columns, text, open, empty }) {
    Object.assign(this, { label, columns, text, open, empty });
    this.rows = [];
    this.shown = [];
    this.wanted = "";
    this.sorted = null;
    this.made = 0;
    this.at = 0;
    this.body = el("tbody");
    this.heads = columns.map((column) => this.head(column));
    this.grid = el("table", { role: "grid", "aria-label": label },
      el("thead", {}, el("tr", {}, this.heads)), this.body);
    this.more = el("div", { class: "more" });
    this.nothing = el("p", { class: "empty" });
    this.node = el("div", { class: "list" }, el("div", { class: "wide" }, this.grid), this.more, this.nothing);
    this.body.addEventListener("keydown", (event) => this.key(event));
    this.body.addEventListener("click", (event) => this.clicked(event));
    this.body.addEventListener("focusin", (event) => this.mark(Number(event.target.closest("tr")?.dataset.place)));
    new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && this.extend(2 * AT_ONCE), { rootMargin: "600px" }).observe(this.more);
  }

  head(column) {
    const title = column.by
      ? el("button", { type: "button", click: () => this.sort(column) }, column.title)
      : column.title;
    return el("th", { scope: "col", class: column.kind }, title);
  }

  set(rows) {
    this.rows = rows;
    this.show();
  }

  filter(wanted) {
    if (wanted === this.wanted) return;
    this.wanted = wanted;
    this.at = 0;
    this.show();
  }

  sort(column) {
    const falling = this.sorted?.column === column ? !this.sorted.falling : column.kind?.includes("number") ?? false;
    this.sorted = { column, falling };
    for (const [place, one] of this.columns.entries()) {
      if (one === column) this.heads[place].setAttribute("aria-sort", falling ? "descending" : "ascending");
      else this.heads[place].removeAttribute("aria-sort");
    }
    this.at = 0;
    this.show();
    tell(`Sorted by ${column.title}, ${falling ? "falling" : "rising"}`);
  }

  show() {
    const key = this.shown[this.at];
    const words = this.wanted.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (row) => {
      const text = this.text(row).toLowerCase();
      return words.every((word) => text.includes(word));
    };
    this.shown = words.length ? this.rows.filter(fits) : [...this.rows];
    if (this.sorted) {
      const { column, falling } = this.sorted;
      const sign = falling ? -1 : 1;
      const order = (one, other) => (one < other ? -1 : one > other ? 1 : 0);
      this.shown.sort((one, other) => sign * order(column.by(one) ?? -1, column.by(other) ?? -1));
    }
    // What was under the cursor stays there, if it is there.
    const id = (row) => row?.id ?? row?.name;
    const again = key ? this.shown.findIndex((row) => id(row) === id(key)) : -1;
    const focused = this.body.contains(document.activeElement);
    this.at = Math.max(again, 0);
    this.made = 0;
    this.body.replaceChildren();
    this.extend(Math.max(AT_ONCE, this.at + 1));
    this.grid.setAttribute("aria-rowcount", this.shown.length + 1);
    this.grid.hidden = !this.shown.length;
    this.nothing.textContent = this.shown.length ? "" : this.rows.length ? `Nothing here has “${this.wanted}”.` : this.empty;
    if (focused) this.focus(this.at);
  }

  extend(number) {
    if (this.made >= this.shown.length) return;
    const part = document.createDocumentFragment();
    for (const end = Math.min(this.made + number, this.shown.length); this.made < end; this.made++) {
      const row = this.shown[this.made];
      part.append(el("tr", { "data-place": this.made, tabindex: this.made === this.at ? 0 : -1, "aria-rowindex": this.made + 2 },
        this.columns.map((column) => el("td", { class: column.kind }, column.cell(row)))));
    }
    this.body.append(part);
  }

  mark(place) {
    if (Number.isNaN(place) || place === this.at) return;
    this.body.children[this.at]?.setAttribute("tabindex", -1);
    this.at = place;
    this.body.children[place]?.setAttribute("tabindex", 0);
  }

  focus(place = this.at) {
    place = Math.max(0, Math.min(place, this.shown.length - 1));
    if (place >= this.made) this.extend(place - this.made + AT_ONCE);
    this.mark(place);
    this.body.children[place]?.focus();
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const to = {
      ArrowDown: this.at + 1, ArrowUp: this.at - 1, j: this.at + 1, k: this.at - 1, PageDown: this.at + 15, PageUp: this.at - 15,
      Home: 0, End: this.shown.length - 1,
    }[event.key];
    if (to !== undefined) this.focus(to);
    else if (event.key === "Enter" || event.key === " ") this.open?.(this.shown[this.at]);
    else return;
    event.preventDefault();
  }

  clicked(event) {
    const row = event.target.closest("tr");
    if (!row || !getSelection().isCollapsed) return; // who marks text wants to copy it
    this.mark(Number(row.dataset.place));
    this.open?.(this.shown[this.at]);
  }
}
