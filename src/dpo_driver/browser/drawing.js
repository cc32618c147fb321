// What drawn things look like in words: colours, kinds of shapes, places in CSS pixels, and what a picture's pixels show.
//
// Joined in front of observe.js by browser/observe.py, which runs both in the isolated world. Reads, never writes.
(() => {
  "use strict";
  if (globalThis.dpoDrawing) return;

  const NAMES = new Map(Object.entries({
    "0,0,0": "black", "255,255,255": "white", "255,0,0": "red", "0,128,0": "green", "0,0,255": "blue", "255,255,0": "yellow",
    "0,255,255": "aqua", "255,0,255": "magenta", "0,255,0": "lime", "128,128,128": "gray", "192,192,192": "silver",
    "128,0,0": "maroon", "128,128,0": "olive", "0,0,128": "navy", "0,128,128": "teal", "128,0,128": "purple",
    "255,165,0": "orange", "255,192,203": "pink", "255,215,0": "gold", "165,42,42": "brown",
  }));
  const KINDS = { rect: "rectangle", polygon: "polygon" };
  const PICTURE_SIDE = 400; // a larger picture is a photograph, not a drawing
  const ICON_SIDE = 40; // a smaller one is an icon
  const MAX_PARTS = 60;
  const MIN_AREA = 14; // pixels; less is the soft edge of something else

  const tenth = (number) => Math.round(number * 10) / 10;

  // A colour as a word where it has one, else as #rrggbb; "" for what is transparent. The author's own word wins.
  function color(paint) {
    if (!paint || paint === "none" || paint === "transparent") return "";
    if (/^[a-z]+$/i.test(paint)) return paint.toLowerCase();
    const numbers = paint.startsWith("rgb") ? paint.match(/[\d.]+/g).map(Number) : null;
    if (!numbers) return paint.toLowerCase();
    const [red, green, blue, alpha = 1] = numbers;
    if (alpha === 0) return "";
    return NAMES.get([red, green, blue].join(",")) || "#" + [red, green, blue].map((part) => Math.round(part).toString(16).padStart(2, "0")).join("");
  }

  const place = ({ left, top, width, height }) =>
    `at ${tenth(left + width / 2)},${tenth(top + height / 2)} size ${tenth(width)}x${tenth(height)}`;

  // ---- SVG -------------------------------------------------------------------------------------------------------

  // Box of a shape without its stroke, on the screen.
  function boxOnScreen(el, matrix) {
    const box = el.getBBox();
    const corners = [[0, 0], [1, 0], [0, 1], [1, 1]].map(([across, down]) =>
      new DOMPoint(box.x + across * box.width, box.y + down * box.height).matrixTransform(matrix));
    const xs = corners.map((point) => point.x), ys = corners.map((point) => point.y);
    const left = Math.min(...xs), top = Math.min(...ys);
    return { left, top, width: Math.max(...xs) - left, height: Math.max(...ys) - top };
  }

  // {name, value} of an SVG shape or text; x and y are where its document lies in the top viewport.
  function svg(el, style, [x, y]) {
    const matrix = el.getScreenCTM();
    const at = (px, py) => {
      const point = new DOMPoint(px, py).matrixTransform(matrix);
      return `${tenth(point.x + x)},${tenth(point.y + y)}`;
    };
    const paint = color(el.getAttribute("fill") || el.style.fill || style.fill);
    const stroke = color(el.getAttribute("stroke") || el.style.stroke || style.stroke);
    const tag = el.tagName;
    if (tag === "line") {
      const [x1, y1, x2, y2] = ["x1", "y1", "x2", "y2"].map((key) => el[key].baseVal.value);
      return { name: `${stroke || paint} line`, value: `from ${at(x1, y1)} to ${at(x2, y2)}` };
    }
    const box = boxOnScreen(el, matrix);
    const value = place({ ...box, left: box.left + x, top: box.top + y });
    if (tag === "text" || tag === "tspan") return { name: "", value: `${paint || stroke} ${value}` };
    const corners = tag === "polygon" ? el.points.numberOfItems : 0;
    const kind = corners === 3 ? "triangle" : KINDS[tag] || tag;
    const name = [paint || stroke, kind, paint ? "" : "outline"].filter(Boolean).join(" ");
    if (tag === "circle") {
      const radius = el.r.baseVal.value * Math.hypot(matrix.a, matrix.b);
      return { name, value: `at ${at(el.cx.baseVal.value, el.cy.baseVal.value)} radius ${tenth(radius)}` };
    }
    return { name, value: corners > 4 ? `${corners} corners ${value}` : value };
  }

  // ---- boxes without words ---------------------------------------------------------------------------------------

  // {name, value} of an empty element that is seen by its colour, frame or picture; null if nothing is seen of it.
  function painted(el, style, [x, y]) {
    const box = el.getBoundingClientRect();
    if (box.width < 4 || box.height < 4) return null;
    const fill = color(el.style.backgroundColor || style.backgroundColor);
    const framed = ["Top", "Right", "Bottom", "Left"].every((side) => parseFloat(style[`border${side}Width`]) > 0);
    const edge = framed ? color(style.borderTopColor) : "";
    const [, picture] = /url\(["']?([^"')]+)/.exec(style.content) || [];
    if (!fill && !edge && !picture) return null;
    const name = picture ? `picture ${picture.split("/").pop().replace(/\.\w+$/, "")}` : fill ? `${fill} box` : "empty box";
    const value = place({ left: box.left + x, top: box.top + y, width: box.width, height: box.height });
    return { name, value: edge ? `${value} border ${tenth(parseFloat(style.borderTopWidth))} ${edge}` : value };
  }

  // ---- pictures --------------------------------------------------------------------------------------------------

  const seen = new WeakMap(); // image -> [address, parts]

  function pixelsOf(el, width, height) {
    try {
      const surface = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
      surface.drawImage(el, 0, 0, width, height);
      return surface.getImageData(0, 0, width, height).data;
    } catch (error) {
      if (error instanceof DOMException) return null; // another origin's picture, or a broken one
      throw error;
    }
  }

  // Corners of a convex outline: points that lie nearly on the line between their neighbours are dropped.
  function cornersOf(points, tolerance) {
    points.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    const turn = (a, b, c) => (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
    const half = (list) => {
      const chain = [];
      for (const point of list) {
        while (chain.length > 1 && turn(chain[chain.length - 2], chain[chain.length - 1], point) <= 0) chain.pop();
        chain.push(point);
      }
      return chain.slice(0, -1);
    };
    const hull = [...half(points), ...half([...points].reverse())];
    const off = (index) => {
      const [a, b, c] = [-1, 0, 1].map((step) => hull[(index + step + hull.length) % hull.length]);
      return Math.abs(turn(a, b, c)) / (Math.hypot(c[0] - a[0], c[1] - a[1]) || 1);
    };
    while (hull.length > 3) {
      let least = 0;
      for (let index = 1; index < hull.length; index++) if (off(index) < off(least)) least = index;
      if (off(least) > tolerance) break;
      hull.splice(least, 1);
    }
    return hull;
  }

  // The differently coloured patches of a picture, {name, value, box} each; [] where it cannot be read or shows too much.
  function parts(el, [x, y]) {
    const box = el.getBoundingClientRect();
    const width = Math.round(box.width), height = Math.round(box.height);
    if (width < 4 || height < 4 || width > PICTURE_SIDE || height > PICTURE_SIDE) return [];
    let found;
    if (el.tagName === "IMG") {
      if (!el.complete || !el.naturalWidth || Math.max(width, height) < ICON_SIDE) return [];
      const known = seen.get(el);
      found = known && known[0] === el.currentSrc ? known[1] : patches(el, width, height);
      seen.set(el, [el.currentSrc, found]);
    } else found = patches(el, width, height);
    return found.map(({ name, area, corners }) => {
      const at = { ...area, left: area.left + box.left + x, top: area.top + box.top + y };
      return { name, value: (corners ? `${corners} corners ` : "") + place(at), box: [at.left, at.top, at.width, at.height].map(Math.round) };
    });
  }

  function patches(el, width, height) {
    const data = pixelsOf(el, width, height);
    if (!data) return [];
    const shade = new Uint8Array(width * height); // 2 bits a channel; 255 is transparent
    const counts = new Map();
    for (let i = 0; i < shade.length; i++) {
      shade[i] = data[4 * i + 3] < 128 ? 255 : (data[4 * i] >> 6 << 4) | (data[4 * i + 1] >> 6 << 2) | (data[4 * i + 2] >> 6);
      counts.set(shade[i], (counts.get(shade[i]) || 0) + 1);
    }
    const ground = [...counts].sort((a, b) => b[1] - a[1])[0][0];
    const done = new Uint8Array(shade.length);
    const found = [];
    for (let first = 0; first < shade.length; first++) {
      if (done[first] || shade[first] === ground || shade[first] === 255) continue;
      const inside = [first];
      done[first] = 1;
      for (let next = 0; next < inside.length; next++) {
        const at = inside[next], column = at % width;
        for (const beside of [column ? at - 1 : -1, column < width - 1 ? at + 1 : -1, at - width, at + width]) {
          if (beside < 0 || beside >= shade.length || done[beside] || shade[beside] !== shade[first]) continue;
          done[beside] = 1;
          inside.push(beside);
        }
      }
      if (inside.length >= MIN_AREA) found.push(patch(inside, data, width));
      if (found.length > MAX_PARTS) return [];
    }
    return found;
  }

  function patch(inside, data, width) {
    const points = inside.map((at) => [at % width, Math.floor(at / width)]);
    const xs = points.map((point) => point[0]), ys = points.map((point) => point[1]);
    const [left, right] = span(xs), [top, bottom] = span(ys);
    const area = { left, top, width: right - left + 1, height: bottom - top + 1 };
    const hull = cornersOf(points, Math.max(1.5, 0.06 * Math.max(area.width, area.height)));
    const mean = [0, 1, 2].map((part) => inside.reduce((sum, at) => sum + data[4 * at + part], 0) / inside.length);
    const middle = inside[inside.length >> 1];
    const exact = `rgb(${[0, 1, 2].map((part) => data[4 * middle + part]).join(",")})`;
    const paint = NAMES.get(mean.map((part) => (part < 40 ? 0 : part > 215 ? 255 : Math.round(part))).join(",")) || color(exact);
    const full = inside.length / (area.width * area.height);
    const kind = full > 0.9 ? "rectangle" : hull.length === 3 ? "triangle" : hull.length > 8 ? "circle" : "shape";
    return { name: `${paint} ${kind}`, area, corners: kind === "shape" || kind === "triangle" ? hull.length : 0 };
  }

  function span(numbers) {
    let least = Infinity, most = -Infinity;
    for (const number of numbers) { if (number < least) least = number; if (number > most) most = number; }
    return [least, most];
  }

  globalThis.dpoDrawing = Object.freeze({ color, place, svg, painted, parts });
})();
