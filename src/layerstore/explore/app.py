"""The terminal view: a list of what there is; of one thing its lines, and beside them the files as each leaves them."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import events, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Input, Static, Tree
from textual.widgets.tree import TreeNode

from layerstore import LayerstoreError, Store
from layerstore.explore import words
from layerstore.explore.model import Explored, File, Mark, Row, explore

__all__ = ["Explorer"]

_MOST = 64 << 10
"""Bytes of a file that are shown."""
_NARROW = 100
"""Columns below which the lines stand above the files."""
_AT_ONCE = 200
"""Lines of a list that are made before it is shown: textual takes 0.2 ms for each, and thousands are no screenful."""
_AS_LONG_AS_IT_TAKES = 24 * 3600.0
"""Seconds for which it is told what is waited for: it goes with what is shown then."""


class Explorer(App[None]):
    """The program. `name`: what to look at; None: it is chosen from a list."""

    TITLE = "layerstore explore"
    CSS = """
    #summary { height: auto; background: $panel; color: $text; padding: 0 1; }
    #lines { width: 45%; border-right: solid $panel; }
    #details { height: 40%; border-top: solid $panel; padding: 0 1; }
    #rows { height: 1fr; }
    #files { width: 1fr; }
    #filter { display: none; height: 3; }
    #filter.shown { display: block; }
    .narrow Horizontal { layout: vertical; }
    .narrow #lines { width: 100%; height: 50%; border-right: none; border-bottom: solid $panel; }
    .narrow #details { height: 50%; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("t", "toggle_dark", "Theme"),
    ]

    def __init__(self, store: Store, name: str | None = None) -> None:
        super().__init__()
        self.store = store
        self.failure: LayerstoreError | None = None
        """Why there was nothing to look at."""
        self._first = name

    def on_mount(self) -> None:
        if self._first is None:
            self.push_screen(Choice(self.store))
        else:
            self.look(self._first)

    def action_toggle_dark(self) -> None:
        """Dark on light, or light on dark."""
        self.theme = "textual-light" if self.current_theme.dark else "textual-dark"

    @work(thread=True, exclusive=True)
    def look(self, name: str, title: str | None = None) -> None:
        """Read what there is under a name, or an ID, and show it."""
        try:
            found = explore(self.store, name, title, told=self._tell_waits)
        except LayerstoreError as error:
            self.call_from_thread(self._fail, error)
            return
        self.call_from_thread(self._show, found)

    def _tell_waits(self, lacking: int) -> None:
        self.call_from_thread(self.notify, words.waits(lacking), timeout=_AS_LONG_AS_IT_TAKES, markup=False)

    def _show(self, found: Explored) -> None:
        self.call_later(self.clear_notifications)  # in its turn: what was told a moment ago is on its way yet
        self.push_screen(Inside(found))

    def _fail(self, error: LayerstoreError) -> None:
        if self._first is None:
            self.call_later(self.clear_notifications)
            self.notify(words.plain(str(error)), severity="error", markup=False)
        else:
            self.failure = error
            self.exit(return_code=1)


class Choice(Screen[None]):
    """Images and containers, to choose from."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store

    def compose(self) -> ComposeResult:
        yield Static("Choose an image or a container", id="summary")
        yield DataTable(id="choice", cursor_type="row")
        yield Footer()

    def on_mount(self) -> None:
        table = self.query_one(DataTable)
        images, boxes = self._store.images(), self._store.containers()
        rows: list[tuple[str, tuple[str, ...]]] = [
            (f"{image.id} {name}", ("image", name, image.short_id, words.size(image.size), image.created[:19]))
            for image in images
            for name in image.tags or (image.short_id,)
        ]
        rows += [(f"{box.id} {box.name}", ("container", box.name, box.id[:12], "", box.created[:19])) for box in boxes]
        # Of all rows, so that nothing moves when the rest of them comes.
        widest = max((len(words.plain(cells[1])) for _, cells in rows), default=0)
        for title, width in zip(("KIND", "NAME", "ID", "SIZE", "CREATED"), (9, widest, 12, 6, 19), strict=True):
            table.add_column(title, width=max(width, len(title)))
        self._fill(table, rows[:_AT_ONCE])
        table.focus()
        if len(rows) > _AT_ONCE:
            self.call_after_refresh(self._fill, table, rows[_AT_ONCE:])

    def _fill(self, table: DataTable[Text], rows: list[tuple[str, tuple[str, ...]]]) -> None:
        for key, cells in rows:
            table.add_row(*map(words.cell, cells), key=key)

    def on_data_table_row_selected(self, chosen: DataTable.RowSelected) -> None:
        """Look at it."""
        identity, _, title = str(chosen.row_key.value).partition(" ")
        app = self.app
        assert isinstance(app, Explorer)  # whose screen this is
        app.look(identity, title)


class Inside(Screen[None]):
    """One image, container or checkpoint: lines, and files."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "app.focus_next", "Other side", show=False),
        Binding("c", "toggle_kept", "Changed"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("v", "view", "Contents"),
        Binding("w", "waste", "Wasted"),
        Binding("escape", "back", "Back"),
    ]

    def __init__(self, of: Explored) -> None:
        super().__init__()
        self._of = of
        self._changed_only = False
        self._root: File | None = None

    def compose(self) -> ComposeResult:
        yield Static(words.summary(self._of), id="summary", markup=False)
        with Horizontal():
            with Vertical(id="lines"):
                yield DataTable(id="rows", cursor_type="row")
                with VerticalScroll(id="details", can_focus=False):
                    yield Static("", id="said", markup=False)
            yield Tree[File]("/", id="files")
        yield Input(placeholder="part of a path", id="filter")
        yield Footer()

    def on_mount(self) -> None:
        self.watch(self.app, "theme", self._again, init=False)  # for the marks have colours of their own
        table = self.query_one("#rows", DataTable)
        table.add_columns("#", "SIZE", "LOST", "LINE")
        for row in self._of.rows:
            lost = words.size(row.lost) if row.lost else ""
            amount = words.size(row.bytes) if row.level is not None else ""
            table.add_row(str(row.number), amount, lost, words.cell(row.text[:200]))
        table.move_cursor(row=max(self._of.top, 0))
        table.focus()

    def on_resize(self, event: events.Resize) -> None:
        """Beside each other, or above."""
        self.set_class(event.size.width < _NARROW, "narrow")

    def on_data_table_row_highlighted(self, now: DataTable.RowHighlighted) -> None:
        """Show what the line did."""
        if 0 <= now.cursor_row < len(self._of.rows):
            row = self._of.rows[now.cursor_row]
            self.query_one("#said", Static).update(words.details(row))
            self._load(row)

    @work(thread=True, exclusive=True, group="files")
    def _load(self, row: Row) -> None:
        try:
            root = self._of.files(row)
        except LayerstoreError as error:
            self.app.call_from_thread(self.notify, words.plain(str(error)), severity="error", markup=False)
            return
        self.app.call_from_thread(self._show, root)

    def _show(self, root: File) -> None:
        """The files anew, with those folders open that were."""
        tree: Tree[File] = self.query_one("#files", Tree)
        opened = {node.data.path for node in _nodes(tree.root) if node.data is not None and node.is_expanded}
        self._root = root
        tree.clear()
        tree.root.data = root
        tree.root.set_label(words.file_label(root, dark=self._dark))
        self._fill(tree.root, opened)
        tree.root.expand()

    def _fill(self, node: TreeNode[File], opened: set[str]) -> None:
        """What is in a folder, and in those of it that are open; the others are filled when they are opened."""
        waiting = [node]
        while waiting:
            above = waiting.pop()
            assert above.data is not None  # every node is a file
            for file in filter(self._fits, above.data.children()):
                if not file.is_folder:
                    above.add_leaf(words.file_label(file, dark=self._dark), file)
                    continue
                inner = above.add(
                    words.file_label(file, dark=self._dark), file, expand=file.path in opened or bool(self._wanted)
                )
                if inner.is_expanded:
                    waiting.append(inner)

    @property
    def _dark(self) -> bool:
        return self.app.current_theme.dark

    @property
    def _wanted(self) -> str:
        return self.query_one("#filter", Input).value.lower()

    def _fits(self, file: File) -> bool:
        if self._changed_only and not file.changed:
            return False
        return not self._wanted or _has(file, self._wanted)

    def on_tree_node_expanded(self, event: Tree.NodeExpanded[File]) -> None:
        """Make what is in it, the first time."""
        if not event.node.children and event.node.data is not None:
            self._fill(event.node, set())

    def _again(self) -> None:
        if self._root is not None:
            self._show(self._root)

    # --- keys ---

    def action_toggle_kept(self) -> None:
        """Show only what the line changes, or all."""
        self._changed_only = not self._changed_only
        self._again()

    def action_filter(self) -> None:
        """Show only files whose paths have some part."""
        box = self.query_one("#filter", Input)
        box.add_class("shown")
        box.focus()

    def on_input_submitted(self, _: Input.Submitted) -> None:
        """Show what fits."""
        self._again()
        self.query_one("#files", Tree).focus()

    def action_view(self) -> None:
        """Show what is in the file under the cursor, as the line leaves it."""
        tree: Tree[File] = self.query_one("#files", Tree)
        file = tree.cursor_node.data if tree.cursor_node is not None else None
        row = self._of.rows[self.query_one("#rows", DataTable).cursor_row] if self._of.rows else None
        if row is None or file is None or file.is_folder or file.mark is Mark.REMOVED:
            self.notify("Choose a file on the right: of a removed one nothing is shown.")
            return
        try:
            data, size = self._of.read(row, file.path, _MOST)
        except LayerstoreError as error:
            self.notify(words.plain(str(error)), severity="error", markup=False)
            return
        more = f", the first {words.size(_MOST)}" if size > len(data) else ""
        self.app.push_screen(Page(f"/{words.plain(file.path)}   {words.size(size)}{more}", words.contents(data)))

    def action_waste(self) -> None:
        """Show what lies in layers and does not show."""
        lines = [f"{words.size(one.bytes):>8}  {one.copies:>3} ×  {words.plain(one.path)}" for one in self._of.waste]
        title = f"{words.size(self._of.wasted)} lie in layers and do not show"
        self.app.push_screen(Page(title, "\n".join(lines) or "Nothing."))

    def action_back(self) -> None:
        """To all files, to the list, or out."""
        box = self.query_one("#filter", Input)
        if box.has_class("shown"):
            box.value = ""
            box.remove_class("shown")
            self._again()
            self.query_one("#files", Tree).focus()
        elif len(self.app.screen_stack) > 2:
            self.app.pop_screen()
        else:
            self.app.exit()


class Page(Screen[None]):
    """Text to read."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,v,w", "app.pop_screen", "Back")]

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self._title_line = title
        self._text = text

    def compose(self) -> ComposeResult:
        yield Static(self._title_line, id="summary", markup=False)
        with VerticalScroll():
            yield Static(self._text, id="text", markup=False)
        yield Footer()


def _nodes(root: TreeNode[File]) -> list[TreeNode[File]]:
    """A node and all below it that were made."""
    found = [root]
    for node in found:
        found += node.children
    return found


def _has(file: File, wanted: str) -> bool:
    """Has its path, or that of anything in it, this part?"""
    waiting = [file]
    while waiting:
        one = waiting.pop()
        if wanted in one.path.lower():
            return True
        waiting += one.inside.values()
    return False
