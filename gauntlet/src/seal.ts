// The sealed script: the only thing in the page that can speak to the server. The server writes it, with a one-time key,
// into the shell as its first inline script (envs/gauntlet/server.py); it is built apart from the app.
//
// It reports trusted input on elements with `data-part`, and hands what the server says to the app. Whatever runs in the
// page later, be it the app or an agent's script, can neither read the key nor make it send something: everything here
// lives in one closure, built-ins are used through copies taken before any other script ran, objects that are looked into
// have no prototype, and events count only with `isTrusted`, which scripts cannot set. The socket itself is no secret:
// whoever is handed a message can see the event that brought it (`window.event`) and so its target. That is why each
// message carries the key again.

(() => {
  "use strict";

  const KEY = "@@KEY@@"; // the server writes the real one here

  // ---- pristine copies -----------------------------------------------------------------------------------------------

  const apply = Reflect.apply;
  const { create, freeze, defineProperty, getOwnPropertyDescriptor } = Object;
  const stringify = JSON.stringify; // for strings only: an object could bring a toJSON along
  const round = Math.round;
  const frame = requestAnimationFrame;
  const getter = (owner: object, name: string) => getOwnPropertyDescriptor(owner, name)!.get!;
  const method = (owner: object, name: string) => getOwnPropertyDescriptor(owner, name)!.value as (...a: never[]) => unknown;

  const listen = method(EventTarget.prototype, "addEventListener");
  const getType = getter(Event.prototype, "type");
  const getTarget = getter(Event.prototype, "target");
  const composedPath = method(Event.prototype, "composedPath");
  const getDetail = getter(UIEvent.prototype, "detail");
  const mouse = {
    x: getter(MouseEvent.prototype, "clientX"),
    y: getter(MouseEvent.prototype, "clientY"),
    button: getter(MouseEvent.prototype, "button"),
    related: getter(MouseEvent.prototype, "relatedTarget"),
  };
  const getPointerId = getter(PointerEvent.prototype, "pointerId");
  const getKey = getter(KeyboardEvent.prototype, "key");
  const getDelta = getter(WheelEvent.prototype, "deltaY");
  const getDeltaMode = getter(WheelEvent.prototype, "deltaMode");
  const getInputType = getter(InputEvent.prototype, "inputType");
  const getData = getter(InputEvent.prototype, "data");
  const getParent = getter(Node.prototype, "parentNode");
  const getDocument = getter(Node.prototype, "ownerDocument");
  const getHost = getter(ShadowRoot.prototype, "host");
  const getSlot = getter(Element.prototype, "assignedSlot");
  const getShadow = getter(Element.prototype, "shadowRoot");
  const getAttribute = method(Element.prototype, "getAttribute");
  const getBox = method(Element.prototype, "getBoundingClientRect");
  const box = {
    left: getter(DOMRectReadOnly.prototype, "left"),
    top: getter(DOMRectReadOnly.prototype, "top"),
    width: getter(DOMRectReadOnly.prototype, "width"),
    height: getter(DOMRectReadOnly.prototype, "height"),
  };
  const atPoint = method(Document.prototype, "elementFromPoint");
  const shadowAtPoint = method(ShadowRoot.prototype, "elementFromPoint");
  const select = method(Element.prototype, "querySelectorAll");
  const getTags = method(Document.prototype, "getElementsByTagName");
  const listLength = getter(NodeList.prototype, "length");
  const listItem = method(NodeList.prototype, "item");
  const tagsLength = getter(HTMLCollection.prototype, "length");
  const tagsItem = method(HTMLCollection.prototype, "item");
  const inputValue = getter(HTMLInputElement.prototype, "value");
  const inputType = getter(HTMLInputElement.prototype, "type");
  const areaValue = getter(HTMLTextAreaElement.prototype, "value");
  const labelControl = getter(HTMLLabelElement.prototype, "control");
  const frameWindow = getter(HTMLIFrameElement.prototype, "contentWindow");
  const scrollTop = getter(window, "scrollY");
  const weakGet = method(WeakMap.prototype, "get");
  const weakSet = method(WeakMap.prototype, "set");
  const weakDelete = method(WeakMap.prototype, "delete");
  const slice = method(String.prototype, "slice");
  const send = method(WebSocket.prototype, "send");
  const socketData = getter(MessageEvent.prototype, "data");
  const top = window;

  // A call that may find an object of another kind: null then.
  function ask(what: (...a: never[]) => unknown, self: unknown, list: unknown[]): any {
    try {
      return apply(what, self, list);
    } catch {
      return null;
    }
  }
  const part = (text: string, from: number, to: number): string => apply(slice, text, [from, to]) as string;
  const remember = (map: WeakMap<object, unknown>, key: object, value: unknown) => apply(weakSet, map, [key, value]);
  const recall = (map: WeakMap<object, unknown>, key: object): any => apply(weakGet, map, [key]);

  // ---- the line to the server ----------------------------------------------------------------------------------------

  const script = document.currentScript;
  if (script) script.remove();

  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(`${scheme}//${location.host}/channel`);
  let open = false;
  let sent = 0;

  const receivers: Record<number, (message: string) => void> = create(null);
  let count = 0;
  let latest = "";
  const subscribe = (receive: (message: string) => void) => {
    receivers[count++] = receive;
    if (latest) receive(latest);
  };
  defineProperty(top, "gauntlet", { value: freeze({ subscribe: freeze(subscribe) }) });

  function hand(message: string): void {
    latest = message;
    for (let i = 0; i < count; i++) {
      try {
        receivers[i](message);
      } catch {
        // the receiver's own business
      }
    }
  }
  const capturing: AddEventListenerOptions = create(null); // an inherited `once` or `signal` would be obeyed
  capturing.capture = true;
  capturing.passive = true;
  const on = (target: EventTarget, kind: string, receive: (event: Event) => void) =>
    apply(listen, target, [kind, receive, capturing]);

  on(socket, "open", () => {
    open = true;
    apply(send, socket, [`{"key":${stringify(KEY)}}`]);
  });
  on(socket, "message", (event) => {
    if (event.isTrusted) hand(apply(socketData, event, []) as string);
  });
  on(socket, "close", (event) => {
    if (!event.isTrusted) return;
    open = false;
    hand('{"kind":"closed"}');
  });

  // ---- what was hit --------------------------------------------------------------------------------------------------

  interface Hit {
    part: string | null;
    node: object | null; // that of the part
    track: boolean;
    field: string | null;
    form: object | null;
  }

  const attribute = (node: unknown, name: string): string | null => ask(getAttribute, node, [name]);

  function hitFrom(start: unknown): Hit {
    const hit: Hit = create(null);
    hit.part = hit.node = hit.field = hit.form = null;
    hit.track = false;
    for (let node: any = start; node; ) {
      const name: string | null = hit.part === null ? attribute(node, "data-part") : null;
      if (name !== null) {
        hit.part = name;
        hit.node = node;
        hit.track = attribute(node, "data-track") !== null;
      }
      if (hit.field === null) hit.field = attribute(node, "data-field");
      if (hit.form === null && attribute(node, "data-form") !== null) hit.form = node;
      node = ask(getSlot, node, []) || ask(getParent, node, []) || ask(getHost, node, []);
    }
    return hit;
  }

  const innermost = (event: Event): any => (apply(composedPath, event, []) as EventTarget[])[0];

  // A finger's pointer stays with the element that it went down on: where it goes up is asked of the document.
  function underPointer(event: Event): any {
    const x = apply(mouse.x, event, []);
    const y = apply(mouse.y, event, []);
    const doc = ask(getDocument, innermost(event), []) || document;
    let found: any = ask(atPoint, doc, [x, y]);
    while (found) {
      const shadow: any = ask(getShadow, found, []);
      const deeper = shadow && ask(shadowAtPoint, shadow, [x, y]);
      if (!deeper || deeper === found) break;
      found = deeper;
    }
    return found || innermost(event);
  }

  // ---- text that was really typed ------------------------------------------------------------------------------------

  interface Pending {
    before: string;
    good: boolean;
    kind: string;
    data: string;
  }
  const texts = new WeakMap<object, string>(); // field -> its text, as far as trusted input made it
  const pasts = new WeakMap<object, Record<string, boolean>>(); // field -> texts that it had: for undo
  const pendings = new WeakMap<object, Pending>();

  const UNTEXT: Record<string, boolean> = create(null);
  for (const kind of ["checkbox", "radio", "button", "submit", "reset", "image", "file", "range", "color", "hidden"]) UNTEXT[kind] = true;

  function content(field: object): string | null {
    const kind = ask(inputType, field, []);
    if (kind !== null) return UNTEXT[kind] ? null : ask(inputValue, field, []);
    return ask(areaValue, field, []);
  }
  const isTrue = (field: object, now: string) => now === "" || recall(texts, field) === now;

  // Whether `after` is `before` with one stretch replaced by `data`.
  function made(before: string, data: string, after: string): boolean {
    const added = data.length;
    for (let i = 0; i <= before.length && i + added <= after.length; i++) {
      const rest = part(after, i + added, after.length);
      if (
        part(after, i, i + added) === data &&
        rest.length <= before.length - i &&
        part(before, before.length - rest.length, before.length) === rest
      ) {
        return true;
      }
      if (before[i] !== after[i]) break;
    }
    return false;
  }

  function oneLine(text: string): string {
    let kept = "";
    for (let i = 0; i < text.length; i++) if (text[i] !== "\n" && text[i] !== "\r") kept += text[i];
    return kept;
  }

  function beforeTyping(event: Event): void {
    const field = innermost(event);
    const before = content(field);
    if (before === null) return;
    const pending: Pending = create(null);
    pending.before = before;
    pending.good = isTrue(field, before);
    pending.kind = (apply(getInputType, event, []) as string) || "";
    const data = (apply(getData, event, []) as string | null) || "";
    pending.data = ask(areaValue, field, []) === null ? oneLine(data) : data;
    remember(pendings, field, pending);
  }

  function typed(event: Event): void {
    const field = innermost(event);
    const after = content(field);
    if (after === null) return;
    const pending: Pending | undefined = recall(pendings, field);
    apply(weakDelete, pendings, [field]);
    let past: Record<string, boolean> | undefined = recall(pasts, field);
    if (!past) remember(pasts, field, (past = create(null) as Record<string, boolean>));
    if (pending && pending.good) past[pending.before] = true;
    let good = after === "";
    if (!good && pending) {
      good =
        (pending.data !== "" && after === pending.data) ||
        (pending.good && made(pending.before, pending.data, after)) ||
        ((pending.kind === "historyUndo" || pending.kind === "historyRedo") && past[after] === true);
    }
    if (good) {
      remember(texts, field, after);
      past[after] = true;
    }
    const name = attribute(field, "data-field");
    if (name !== null) report(event, "input", hitFrom(field), `,"value":${stringify(good ? after : "")}${good ? "" : ',"tainted":{"value":true}'}`);
  }

  // `,"fields":{...},"tainted":{...}` of a form: the texts, and which of them a script had a hand in.
  function fieldsOf(form: object | null): string {
    if (form === null) return "";
    const found = ask(select, form, ["[data-field]"]);
    const length = ask(listLength, found, []) || 0;
    let fields = "";
    let tainted = "";
    for (let i = 0; i < length; i++) {
      const field = ask(listItem, found, [i]);
      const now = content(field);
      if (now === null) continue;
      const name = stringify(attribute(field, "data-field") || "");
      const good = isTrue(field, now);
      fields += `${fields ? "," : ""}${name}:${stringify(good ? now : "")}`;
      if (!good) tainted += `${tainted ? "," : ""}${name}:true`;
    }
    return `,"fields":{${fields}}${tainted ? `,"tainted":{${tainted}}` : ""}`;
  }

  // ---- reports -------------------------------------------------------------------------------------------------------

  let waiting = ""; // a pointermove that goes out with the next frame
  let asked = false;
  let lastTracked = "";
  let source = ""; // the part that the pointer went down on
  let down: Hit | null = null; // what it hit there, and where that was
  let downX = 0;
  let downY = 0;
  let dragged = ""; // the part that a native drag began on

  function put(message: string): void {
    if (open) apply(send, socket, [`{"seal":${stringify(KEY)},"n":${++sent},${message}}`]);
  }
  function flush(): void {
    if (waiting) {
      const message = waiting;
      waiting = "";
      put(message);
    }
  }
  const number = (value: number): string => (value - value === 0 ? `${round(value * 100) / 100}` : "0");

  function place(event: Event, hit: Hit): string {
    const x = ask(mouse.x, event, []);
    if (x === null || hit.node === null) return "";
    const y = apply(mouse.y, event, []) as number;
    const rect = ask(getBox, hit.node, []);
    return (
      `,"x":${number(x - (apply(box.left, rect, []) as number))},"y":${number(y - (apply(box.top, rect, []) as number))}` +
      `,"width":${number(apply(box.width, rect, []) as number)},"height":${number(apply(box.height, rect, []) as number)}`
    );
  }

  function text(kind: string, event: Event, hit: Hit, more: string): string {
    const field = hit.field === null ? "" : `,"field":${stringify(hit.field)}`;
    const button = ask(mouse.button, event, []);
    return (
      `"kind":${stringify(kind)},"part":${stringify(hit.part || "")}${field}${place(event, hit)}` +
      `${button ? `,"button":${number(button)}` : ""},"scroll":${number(apply(scrollTop, top, []) as number)}${more}`
    );
  }
  function report(event: Event, kind: string, hit: Hit, more: string): void {
    flush();
    put(text(kind, event, hit, more));
  }

  function moved(event: Event): void {
    const hit = hitFrom(innermost(event));
    if (hit.part === null || !hit.track) {
      left(event);
      return;
    }
    if (lastTracked !== hit.part) flush();
    lastTracked = hit.part;
    waiting = text("pointermove", event, hit, source ? `,"source":${stringify(source)}` : "");
    if (!asked) {
      asked = true;
      frame(() => {
        asked = false;
        flush();
      });
    }
  }

  // The pointer is over no tracked part any more: said once, as a pointermove over nothing.
  function left(event: Event): void {
    if (lastTracked === "") return;
    lastTracked = "";
    const nothing: Hit = create(null);
    nothing.part = nothing.node = nothing.field = nothing.form = null;
    report(event, "pointermove", nothing, "");
  }

  // Clicks that no press of a pointer made: by a key on the focused element, or by a label, which hands its click on to its
  // control. A script can make the browser fire such clicks as trusted ones, too; so each has to be announced by input
  // that a script cannot make.
  let announced: unknown = null;
  let pressed = false; // a pointer went down and up, and its click has not come yet

  function clicked(event: Event): void {
    const target = innermost(event);
    const pointer = ask(getPointerId, event, []);
    if (!pressed || (apply(getDetail, event, []) as number) === 0 || (pointer !== null && pointer < 0)) {
      const expected = announced;
      announced = null;
      if (expected !== target) return;
    } else {
      pressed = false;
      announced = null;
      for (let node: any = target; node && announced === null; node = ask(getParent, node, [])) {
        if (attribute(node, "data-part") !== null) break; // counts for this part: one click is not evidence twice
        const control = ask(labelControl, node, []);
        if (control && control !== target) announced = control;
      }
    }
    const hit = hitFrom(target);
    report(event, "click", hit, fieldsOf(hit.form));
  }

  // A pointer that has not moved is where it went down, whatever was moved under it meanwhile: a click is no drag.
  function travelled(event: Event): boolean {
    if (down === null) return true;
    const x = (apply(mouse.x, event, []) as number) - downX;
    const y = (apply(mouse.y, event, []) as number) - downY;
    return x * x + y * y > 9;
  }

  function keyed(event: Event, kind: string): void {
    const target = innermost(event);
    const key = apply(getKey, event, []) as string;
    if (typeof key !== "string") return; // autofill makes such events
    if ((kind === "keydown" && key === "Enter") || (kind === "keyup" && key === " ")) announced = target;
    const hit = hitFrom(target);
    // What is typed into a field reaches the server as its text.
    if (content(target) !== null && key !== "Enter" && key !== "Escape") return;
    report(event, kind, hit, `,"key":${stringify(key)}${kind === "keydown" && key === "Enter" ? fieldsOf(hit.form) : ""}`);
  }

  function received(event: Event): void {
    if (!event.isTrusted) return;
    const kind = apply(getType, event, []) as string;
    if (kind === "pointermove") moved(event);
    else if (kind === "click") clicked(event);
    else if (kind === "keydown" || kind === "keyup") keyed(event, kind);
    else if (kind === "beforeinput") beforeTyping(event);
    else if (kind === "input") typed(event);
    else if (kind === "pointerdown") {
      down = hitFrom(innermost(event));
      downX = apply(mouse.x, event, []) as number;
      downY = apply(mouse.y, event, []) as number;
      source = down.part || "";
      pressed = false;
      report(event, kind, down, "");
    } else if (kind === "pointerup") {
      report(event, kind, travelled(event) ? hitFrom(underPointer(event)) : down!, source ? `,"source":${stringify(source)}` : "");
      source = "";
      down = null;
      pressed = true;
    } else if (kind === "pointercancel") {
      source = "";
      down = null;
      left(event);
    } else if (kind === "pointerout") {
      if (ask(mouse.related, event, []) === null) left(event);
    } else if (kind === "dragstart") dragged = hitFrom(innermost(event)).part || "";
    else if (kind === "dragend") dragged = "";
    else if (kind === "drop") {
      report(event, kind, hitFrom(innermost(event)), dragged ? `,"source":${stringify(dragged)}` : "");
      dragged = "";
    } else if (kind === "wheel") {
      const lines = apply(getDeltaMode, event, []) ? 16 : 1;
      report(event, kind, hitFrom(innermost(event)), `,"delta":${number((apply(getDelta, event, []) as number) * lines)}`);
    } else report(event, kind, hitFrom(innermost(event)), ""); // dblclick, contextmenu
  }

  // ---- this window and the frames in it ------------------------------------------------------------------------------

  const watched = new WeakMap<object, boolean>(); // documents
  const KINDS = create(null) as Record<number, string>;
  let kinds = 0;
  for (const kind of [
    "pointerdown", "pointerup", "pointermove", "pointercancel", "pointerout", "click", "dblclick", "contextmenu", "keydown",
    "keyup", "wheel", "beforeinput", "input", "dragstart", "dragend", "drop",
  ]) KINDS[kinds++] = kind; // prettier-ignore

  function watch(view: Window): void {
    let doc: Document;
    try {
      doc = view.document; // throws for another origin's
    } catch {
      return;
    }
    if (!doc || recall(watched, doc)) return;
    remember(watched, doc, true);
    for (let i = 0; i < kinds; i++) on(view, KINDS[i], received);
    on(doc, "load", (event) => frameIn(apply(getTarget, event, [])));
    const frames = ask(getTags, doc, ["iframe"]);
    const length = ask(tagsLength, frames, []) || 0;
    for (let i = 0; i < length; i++) frameIn(ask(tagsItem, frames, [i]));
  }

  // A frame that has loaded (or says so: no harm is done by looking).
  function frameIn(element: unknown): void {
    const view = ask(frameWindow, element, []);
    if (view) watch(view);
  }

  watch(top);
})();
