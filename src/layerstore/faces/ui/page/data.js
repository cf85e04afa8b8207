// What the store says, got page by page; and what follows from it for each layer.

let token = sessionStorage.getItem("layerstore-token") ?? "";

export const data = {
  version: "", boxes_version: "", info: null, space: null, images: [], layers: [], containers: [], checkpoints: [], volumes: [],
  total: {}, images_by_id: new Map(), containers_by_id: new Map(),
};

export class Failed extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Take the token out of the address, so that it is not read over a shoulder or copied with it. */
export function takeToken(given) {
  const found = given ?? /^#token=([\w-]+)/.exec(location.hash)?.[1];
  if (!found) return;
  token = found;
  sessionStorage.setItem("layerstore-token", token);
  if (given === undefined) history.replaceState(null, "", "#/overview");
}

export async function ask(path, parameters = {}) {
  const query = new URLSearchParams(parameters).toString();
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let reply;
  try {
    reply = await fetch(`api/${path}${query ? `?${query}` : ""}`, { headers });
  } catch {
    throw new Failed(0, "The server does not answer: does layerstore ui still run?");
  }
  let said = null;
  try {
    said = await reply.json();
  } catch {
    // An answer of somebody else.
  }
  if (!reply.ok || said === null) throw new Failed(reply.status, said?.errors?.[0]?.message ?? `HTTP ${reply.status}`);
  return said;
}

class Changed extends Error {}

async function list(name, into, paint) {
  let next = 0;
  const rows = [];
  while (next !== null) {
    const part = await ask(name, { from: next });
    // Of a list all parts, and of those that refer to each other all, are of one moment, or it is read again.
    const kind = name === "containers" ? "boxes_version" : "version";
    into[kind] ||= part.version;
    if (part.version !== into[kind]) throw new Changed();
    rows.push(...part.rows);
    into.total[name] = part.total;
    into[name] = rows;
    next = part.next;
    paint?.();
  }
}

/** All of it. `paint` is called whenever there is more to be seen: the images come first, what was counted last. */
export async function load(paint) {
  for (let attempt = 0; ; attempt++) {
    const fresh = { version: "", boxes_version: "", total: {}, space: null };
    const show = () => {
      Object.assign(data, fresh);
      derive();
      paint();
    };
    try {
      const info = ask("info").then((found) => { fresh.info = found; });
      await list("images", fresh, attempt === 0 && !data.version ? show : undefined);
      await info;
      for (const name of ["layers", "volumes", "checkpoints", "containers"]) await list(name, fresh);
      show();
      data.space = await ask("space");
      derive();
      paint();
      return;
    } catch (error) {
      if (!(error instanceof Changed) || attempt === 4) throw error instanceof Changed ? new Failed(0, "The store changes faster than it can be read. Try again.") : error;
    }
  }
}

/** What stands on each layer, and how much of the disk is its part. */
function derive() {
  const { layers, images, containers, space } = data;
  data.images_by_id = new Map(images.map((image) => [image.id, image]));
  data.containers_by_id = new Map(containers.map((box) => [box.id, box]));
  const places = new Map(), kept = new Map();
  for (const layer of layers) places.set(layer.id, (places.get(layer.id) ?? 0) + 1);
  for (const [id] of space?.layers ?? []) kept.set(id, (kept.get(id) ?? 0) + 1);
  for (const [place, layer] of layers.entries()) {
    Object.assign(layer, { place, above: [], images: [], containers: [], ends: [], places: places.get(layer.id) });
    // One that lies in several stacks and is kept once has its part of that in each.
    layer.weight = Math.max(layer.size * ((kept.get(layer.id) ?? layer.places) / layer.places), 1);
    if (layer.on !== undefined) layers[layer.on].above.push(layer);
  }
  const stand = (things, kind) => {
    for (const thing of things) {
      let at = thing.top ?? undefined;
      if (at === undefined || !layers[at]) continue;
      if (kind === "images") layers[at].ends.push(thing);
      for (; at !== undefined; at = layers[at].on) layers[at][kind].push(thing);
    }
  };
  stand(images, "images");
  stand(containers, "containers");
  // Parents come first, so from the end all that stands on a layer is known before the layer.
  for (let place = layers.length - 1; place >= 0; place--) {
    const layer = layers[place];
    layer.all = layer.weight + layer.above.reduce((sum, one) => sum + one.all, 0);
    layer.height = 1 + layer.above.reduce((most, one) => Math.max(most, one.height), 0);
    layer.above.sort((one, other) => other.all - one.all || one.place - other.place);
  }
  const points = Map.groupBy ? Map.groupBy(data.checkpoints, (point) => point.container) : grouped(data.checkpoints);
  for (const box of containers) {
    box.points = points.get(box.id) ?? [];
    box.size = space?.containers[box.id]?.[0];
    box.busy = space?.containers[box.id]?.[1];
  }
  const lacking = space?.lacking ?? {};
  for (const layer of layers) layer.lacks = lacking[layer.id] ?? 0;
  if (Object.keys(lacking).length) {
    for (const image of images) image.lacks = [...new Map(stackOf(image).map((layer) => [layer.id, layer.lacks])).values()].reduce((sum, one) => sum + one, 0);
  }
  for (const image of images) [image.shared, image.unique, image.boxes] = space?.images[image.id] ?? [];
  for (const volume of data.volumes) [volume.size, volume.boxes, volume.anonymous] = space?.volumes[volume.name] ?? [];
}

function grouped(points) {
  const found = new Map();
  for (const point of points) found.set(point.container, [...(found.get(point.container) ?? []), point]);
  return found;
}

export const nameOf = (image) => image.tags[0] ?? image.id.slice(0, 12);

/** The layers of something, from the lowest. */
export function stackOf(thing) {
  const found = [];
  for (let at = thing.top ?? undefined; at !== undefined && data.layers[at]; at = data.layers[at].on) found.unshift(data.layers[at]);
  return found;
}
