// The distiller: turns the visible page into a short list of elements, and finds them again for actions.
//
// Runs in an isolated world of the top document (browser/session.py puts it there, browser/observe.py and
// browser/execute.py call it), reads DOM, open shadow roots and same-origin frames, and never writes to the page.
(() => {
  "use strict";
  if (globalThis.dpoDriver) return;
  const drawing = globalThis.dpoDrawing;

  const SKIPPED = new Set(["SCRIPT", "STYLE", "NOSCRIPT", "TEMPLATE", "HEAD", "META", "LINK", "TITLE", "BASE"]);
  const INPUT_ROLES = {
    button: "button", submit: "button", reset: "button", image: "button", checkbox: "checkbox", radio: "radio",
    range: "slider", number: "number", date: "date", time: "time", color: "color", file: "file",
  };
  const ARIA_ROLES = {
    button: "button", link: "link", textbox: "textbox", searchbox: "textbox", checkbox: "checkbox", switch: "checkbox",
    radio: "radio", combobox: "combobox", slider: "slider", spinbutton: "spinbutton", option: "option", tab: "tab",
    menuitem: "menuitem", menuitemcheckbox: "menuitem", menuitemradio: "menuitem", treeitem: "item",
  };
  const TEXT_ROLES = {
    H1: "heading", H2: "heading", H3: "heading", H4: "heading", H5: "heading", H6: "heading",
    TD: "cell", TH: "cell", LI: "listitem", LABEL: "label",
  };
  const SHAPES = new Set(["circle", "rect", "ellipse", "polygon", "polyline", "line", "path"]);
  const HANDLES = new Set(["pointer", "grab"]);
  const WHOLE_CHARS = 80; // a clickable box with more text than this is read piece by piece
  const MAX_NODES = 20000;
  const MAX_OPTIONS = 100;

  // References last as long as an episode; an element keeps its number while it lives.
  let refs = new WeakMap();
  let elements = new Map();
  let next = 1;

  const begin = () => { refs = new WeakMap(); elements = new Map(); next = 1; };

  // Fields whose content is not to be kept. One that was a password stays one when the page shows it.
  const PRIVATE = /(?:^|\s)(?:current-password|new-password|one-time-code|cc-number|cc-csc)$/;
  const passwords = new WeakSet();
  const isSecret = (el) => {
    if (el.tagName === "INPUT" && (el.type === "password" || PRIVATE.test(el.autocomplete))) passwords.add(el);
    return passwords.has(el);
  };

  const refOf = (el) => {
    let ref = refs.get(el);
    if (ref === undefined) {
      ref = String(next++);
      refs.set(el, ref);
      elements.set(ref, new WeakRef(el));
    }
    return ref;
  };

  // The page stands still while it is read: what is asked of an element again and again is worked out once.
  const remembering = [];
  const remembered = (compute) => {
    let known = null;
    remembering.push((on) => { known = on ? new Map() : null; });
    return (key) => {
      if (!known) return compute(key);
      let answer = known.get(key);
      if (answer === undefined) known.set(key, answer = compute(key));
      return answer;
    };
  };

  const collapse = (text) => text.replace(/\s+/g, " ").trim();
  const cut = (text, limit) => (text.length > limit ? text.slice(0, limit - 1) + "…" : text);
  const styleOf = (el) => el.ownerDocument.defaultView.getComputedStyle(el);
  const tagOf = (el) => el.tagName.toUpperCase();
  const isList = (el) => el.tagName === "UL" || el.tagName === "OL" || el.getAttribute("role") === "group";
  const rootOf = (el) => el.getRootNode();
  const childrenOf = (el) => {
    if (el.shadowRoot) return el.shadowRoot.childNodes;
    if (el.tagName === "SLOT") {
      const assigned = el.assignedNodes({ flatten: true });
      if (assigned.length) return assigned;
    }
    return el.childNodes;
  };

  const isHidden = (el, style) =>
    style.display === "none" || style.opacity === "0" || style.contentVisibility === "hidden" ||
    (style.overflow !== "visible" && (el.clientWidth === 0 || el.clientHeight === 0) && style.display !== "inline" &&
      style.display !== "contents" && !(el instanceof SVGElement));

  // Words that are shrunk to nothing, as on a face-down card. A sign without letters stands for an icon and stays.
  const isShrunk = (el, style) => style.fontSize === "0px" && /[\p{L}\p{N}]/u.test(el.textContent);

  // Text of an element as a person reads it, without the text of form controls and, if asked, of nested lists.
  function textOf(el, skipLists) {
    const parts = [];
    const visit = (node) => {
      if (node.nodeType === Node.TEXT_NODE) { parts.push(node.data); return; }
      if (node.nodeType !== Node.ELEMENT_NODE || SKIPPED.has(tagOf(node))) return;
      const tag = tagOf(node);
      if (tag === "SELECT" || tag === "TEXTAREA" || tag === "INPUT") return;
      if (tag === "IMG") { parts.push(" ", node.alt || "", " "); return; }
      if (skipLists && isList(node)) return;
      const style = styleOf(node);
      if (style.display === "none" || style.visibility === "hidden" || isShrunk(node, style)) return;
      const inline = style.display.startsWith("inline");
      if (!inline || tag === "BR") parts.push(" ");
      for (const child of childrenOf(node)) visit(child);
      if (!inline) parts.push(" ");
    };
    for (const child of childrenOf(el)) visit(child);
    return collapse(parts.join(""));
  }

  // ---- names -----------------------------------------------------------------------------------------------------

  const isControl = (el) => /^(INPUT|SELECT|TEXTAREA|BUTTON|METER|PROGRESS|OUTPUT)$/.test(el.tagName);

  // Labels of a control: the native ones, else a <label> without a target that stands directly before it.
  function labelsOf(el) {
    if (el.labels && el.labels.length) return [...el.labels];
    const before = el.previousElementSibling;
    if (isControl(el) && before && before.tagName === "LABEL" && !before.htmlFor && !before.control) return [before];
    return [];
  }

  // The control that a label names, or null.
  function labelled(label) {
    const after = label.nextElementSibling;
    const target = label.control || (!label.htmlFor && after && isControl(after) ? after : null);
    return target && labelsOf(target).includes(label) && target.type !== "hidden" ? target : null;
  }

  function explicitName(el) {
    const ids = el.getAttribute("aria-labelledby");
    if (ids) {
      const root = rootOf(el);
      const named = ids.split(/\s+/).map((id) => root.getElementById && root.getElementById(id)).filter(Boolean);
      const text = collapse(named.map((node) => textOf(node, false)).join(" "));
      if (text) return text;
    }
    return collapse(el.getAttribute("aria-label") || "");
  }

  // What an element is called by its own words, "" if by nothing.
  function named(el, skipLists) {
    const name = explicitName(el) || textOf(el, skipLists) || collapse(el.getAttribute("title") || el.getAttribute("alt") || "");
    if (name) return name;
    const inner = el.querySelector("[aria-label],[title],[alt]");
    return inner ? explicitName(inner) || collapse(inner.getAttribute("title") || inner.getAttribute("alt") || "") : "";
  }

  function controlName(el, role) {
    const explicit = explicitName(el);
    if (explicit) return explicit;
    if (tagOf(el) === "INPUT" && role === "button") {
      const standard = { submit: "Submit", reset: "Reset" }[el.type] || "";
      return collapse(el.value || el.alt || el.title || standard);
    }
    const text = collapse(labelsOf(el).map((label) => textOf(label, false)).join(" "));
    return text || collapse(el.getAttribute("placeholder") || el.title || "");
  }

  // Class names are a last resort: an icon without text has no other words.
  function contentName(el, skipLists) {
    const name = named(el, skipLists);
    if (name) return name;
    if (hasClass(el, "ui-slider-handle")) return "";
    const words = typeof el.className === "string" ? el.className : "";
    return collapse((words || el.id || "").replace(/[-_]+/g, " "));
  }

  // ---- roles, values, states ---------------------------------------------------------------------------------------

  // Windows are moved and resized by their frames; that is no part of what they show.
  const inWindow = (el) => el.closest("[role=dialog], [role=alertdialog]") !== null;
  const hasClass = (el, ...names) => names.some((name) => el.classList.contains(name));

  // What is taken hold of with the mouse: "draggable", "handle" (of something that is resized) or null.
  function gripRole(el, style) {
    const resizes = hasClass(el, "ui-resizable-handle") || (style.cursor.endsWith("-resize") && !el.childElementCount);
    const moves = el.getAttribute("draggable") === "true" || hasClass(el, "ui-draggable", "ui-sortable-handle") ||
      (el.parentElement && hasClass(el.parentElement, "ui-sortable"));
    if ((!resizes && !moves) || inWindow(el)) return null;
    return resizes ? "handle" : "draggable";
  }

  // Role of an element that acts by itself, or null.
  function controlRole(el) {
    const tag = tagOf(el);
    if (hasClass(el, "ui-slider-handle")) return "slider";
    if (tag === "INPUT") {
      if (el.type === "hidden") return null;
      const aria = ARIA_ROLES[el.getAttribute("role")];
      return (aria && !INPUT_ROLES[el.type] ? aria : null) || INPUT_ROLES[el.type] || "textbox";
    }
    const role = ARIA_ROLES[(el.getAttribute("role") || "").split(/\s+/)[0]];
    if (role) return role;
    if (tag === "BUTTON" || tag === "SUMMARY") return "button";
    if (tag === "SELECT") return "combobox";
    if (tag === "TEXTAREA") return "textarea";
    if (tag === "A" && el.hasAttribute("href") && el.getAttribute("role") !== "presentation") return "link";
    if (el.isContentEditable && !(el.parentElement && el.parentElement.isContentEditable)) return "textbox";
    return null;
  }

  function weakRole(el, style, context) {
    const acts = el.hasAttribute("onclick") || (el.tabIndex >= 0 && el.hasAttribute("tabindex"));
    const pointed = HANDLES.has(style.cursor) && !context.pointer;
    if (!acts && !pointed) return null;
    if (tagOf(el) === "BODY" || tagOf(el) === "HTML" || tagOf(el) === "LABEL") return null;
    // What is underlined and points is a link to a reader, whatever its tag.
    const underlined = pointed && style.display === "inline" && style.textDecorationLine.includes("underline");
    return tagOf(el) === "A" || underlined ? "link" : tagOf(el) === "LI" ? "item" : "clickable";
  }

  function valueOf(el, role) {
    if (el.tagName === "SELECT") return [...el.selectedOptions].map((option) => collapse(option.label)).join(", ") || null;
    if (role === "button" && el.tagName !== "INPUT" && !el.textContent.trim() && !named(el)) {
      const seen = drawing.painted(el, styleOf(el), originOf(el.ownerDocument.defaultView));
      return seen && `${seen.name} ${seen.value}`;
    }
    if (role === "button" || role === "checkbox" || role === "radio") return null;
    if (el.tagName === "INPUT" || el.tagName === "TEXTAREA") {
      if (el.type === "password") return "•".repeat(el.value.length) || null;
      if (el.type === "file") return [...el.files].map((file) => file.name).join(", ") || null;
      return el.value || null;
    }
    if (el.isContentEditable && role === "textbox") return collapse(el.innerText) || null;
    if (hasClass(el, "ui-slider-handle")) return el.style.left || el.style.bottom || null;
    return el.getAttribute("aria-valuetext") || el.getAttribute("aria-valuenow");
  }

  function statesOf(el, role) {
    const states = [];
    const aria = (name) => el.getAttribute("aria-" + name);
    if (role === "checkbox" || role === "radio" || role === "menuitem") {
      if (el.tagName === "INPUT" ? el.checked : aria("checked") === "true") states.push("checked");
    }
    if (el.tagName === "SUMMARY" && el.parentElement && el.parentElement.tagName === "DETAILS") {
      states.push(el.parentElement.open ? "expanded" : "collapsed");
    } else if (role === "tab" && TEXT_ROLES[tagOf(el)] !== "heading") {
      // A tab is chosen, not opened; a heading in that role (an accordion) is opened.
      if (aria("selected") === "true") states.push("selected");
    } else if (aria("expanded") !== null && el.tagName !== "INPUT") {
      states.push(aria("expanded") === "true" ? "expanded" : "collapsed");
    } else if (aria("selected") === "true") states.push("selected");
    if (aria("pressed") === "true") states.push("pressed");
    if ((el.matches(":disabled")) || aria("disabled") === "true") states.push("disabled");
    if (el.readOnly && el.type !== "button") states.push("readonly");
    if (el.tagName === "TEXTAREA" && el.scrollHeight > el.clientHeight + 1) {
      states.push(`scrolled ${Math.round((100 * el.scrollTop) / (el.scrollHeight - el.clientHeight))}%`);
    }
    if (rootOf(el).activeElement === el) states.push("focused");
    return states;
  }

  // ---- boxes -------------------------------------------------------------------------------------------------------

  // Where a document's origin lies in the top viewport.
  const originOf = remembered((view) => {
    let [x, y] = [0, 0];
    for (; view.frameElement; view = view.parent) {
      const box = view.frameElement.getBoundingClientRect();
      x += box.left + view.frameElement.clientLeft;
      y += box.top + view.frameElement.clientTop;
    }
    return [x, y];
  });

  // A picture put in an element's place by a style sheet.
  const isIcon = (style) => style.content.startsWith("url(");

  // A box to click that says nothing is told by its colour, as in a palette.
  function swatch(el, style) {
    const painted = style.backgroundColor !== "rgba(0, 0, 0, 0)" && !isIcon(style) && !el.firstChild;
    return painted && !explicitName(el) && !el.title ? `${drawing.color(style.backgroundColor)} ` : "";
  }

  const shifted = (box, [x, y]) => ({ left: box.left + x, top: box.top + y, width: box.width, height: box.height });

  // A straight line has a stroke, but often a box without height or width.
  const hasArea = (el, width, height, least) =>
    el.tagName === "line" ? Math.max(width, height) >= least : width >= least && height >= least;

  const isDrawn = remembered((el) => {
    for (const box of el.getClientRects()) if (hasArea(el, box.width, box.height, Number.MIN_VALUE)) return true;
    return false;
  });

  // A hidden native checkbox whose label is what people see and click is stood for by that label.
  const standIn = remembered((el) => {
    if (isDrawn(el) && el.checkVisibility({ opacityProperty: true, visibilityProperty: true })) return el;
    if (el.tagName === "INPUT" && (el.type === "checkbox" || el.type === "radio")) {
      return labelsOf(el).find((label) => isDrawn(label) && label.checkVisibility({ visibilityProperty: true })) || null;
    }
    return null;
  });

  // ---- the walk ----------------------------------------------------------------------------------------------------

  function observe(options) {
    if (options.fresh) begin();
    for (const remember of remembering) remember(true);
    try { return read(options); } finally { for (const remember of remembering) remember(false); }
  }

  function read(options) {
    const out = [];
    const counts = new Map();
    const consumed = new Set();
    let visited = 0, chars = 0, truncated = 0;

    const isFull = () => out.length >= options.maxElements || chars >= options.maxChars;
    const emit = (el, role, name, extra) => {
      if (isFull()) { truncated++; return; }
      name = cut(name, options.maxNameChars);
      const key = role + "\n" + name;
      const nth = (counts.get(key) || 0) + 1;
      counts.set(key, nth);
      const entry = { ref: null, role, name, nth, ...extra };
      if (el) {
        const box = (standIn(el) || el).getBoundingClientRect();
        const [x, y] = originOf(el.ownerDocument.defaultView);
        entry.tag = el.tagName.toLowerCase();
        entry.box = [box.left + x, box.top + y, box.width, box.height].map(Math.round);
      }
      chars += name.length + (entry.value || "").length + 8;
      out.push(entry);
    };

    const emitActive = (el, role, name) => {
      if (isFull()) { truncated++; return; }
      const value = valueOf(el, role);
      const extra = { ref: refOf(el), states: statesOf(el, role) };
      if (value !== null) extra.value = cut(value, options.maxValueChars);
      if (isSecret(el)) extra.secret = true;
      if (el.tagName === "SELECT") extra.options = [...el.options].slice(0, MAX_OPTIONS).map((option) => collapse(option.label));
      emit(el, role, name, extra);
    };

    const placeOf = (el) => drawing.place(shifted(el.getBoundingClientRect(), originOf(el.ownerDocument.defaultView)));
    const emitText = (text) => { text = collapse(text); if (text) emit(null, "text", text, {}); };

    // Does this box hold things that act by themselves? Then it is no single target.
    function holdsOthers(el) {
      for (const inner of el.querySelectorAll("*")) {
        if (SKIPPED.has(tagOf(inner))) continue;
        const acts = controlRole(inner) || inner.hasAttribute("onclick") || inner.tagName === "LI" ||
          (inner.hasAttribute("tabindex") && inner.tabIndex >= 0) || inner.tagName === "svg" || isIcon(styleOf(inner));
        if (acts && isDrawn(inner)) return true;
      }
      return false;
    }

    // A list entry that can be clicked. One that holds a list is a folder: its own line carries the number.
    function treeItem(el, context) {
      const list = [...el.children].find(isList);
      if (!list) return false;
      const line = [...el.children].find((child) => child !== list && textOf(child, true) && isDrawn(child)) || el;
      const open = styleOf(list).display !== "none";
      const states = statesOf(el, "item").filter((state) => state !== "expanded" && state !== "collapsed");
      emit(line, "item", contentName(el, true), { ref: refOf(line), states: [open ? "expanded" : "collapsed", ...states] });
      visit(list, { ...context, pointer: true, clickable: true });
      return true;
    }

    const origin = (el) => originOf(el.ownerDocument.defaultView);

    // An element that is seen by its colour or frame only.
    function box(el, context) {
      if (context.mute || !context.visible || !isDrawn(el)) return;
      const style = styleOf(el);
      const seen = drawing.painted(el, style, origin(el));
      const role = context.clickable || HANDLES.has(style.cursor) ? "clickable" : "image";
      if (seen) emit(el, role, seen.name, { ref: refOf(el), value: seen.value });
    }

    function grip(el, role, style) {
      const name = role === "handle" ? style.cursor.replace("-resize", "") : textOf(el, false);
      const seen = drawing.painted(el, style, origin(el));
      const paint = seen && role === "draggable" && seen.name.endsWith(" box") && !seen.name.startsWith("empty") ? seen.name + " " : "";
      emit(el, role, name, { ref: refOf(el), states: statesOf(el, role), value: paint + placeOf(el) });
    }

    // Folded to a speck, as the slices of a closed pie menu are.
    const isSpeck = ({ width, height }) => width < 4 && height < 4;

    function shape(el, context) {
      const tag = el.tagName;
      if ((tag === "text" || SHAPES.has(tag)) && isSpeck(el.getBoundingClientRect())) return;
      const style = styleOf(el);
      if (tag === "text" || tag === "tspan") {
        const text = collapse(el.textContent);
        const role = context.clickable || HANDLES.has(style.cursor) ? "clickable" : "text";
        if (text) emit(el, role, text, { ref: refOf(el), value: drawing.svg(el, style, origin(el)).value });
      } else if (tag === "line" || (SHAPES.has(tag) && isDrawn(el))) {
        const { name, value } = drawing.svg(el, style, origin(el));
        emit(el, HANDLES.has(style.cursor) ? "clickable" : "image", explicitName(el) || name, { ref: refOf(el), value });
      } else {
        for (const child of el.children) if (!SKIPPED.has(tagOf(child))) visit(child, context);
      }
    }

    function descend(el, context) {
      const nodes = [...childrenOf(el)];
      const inner = nodes.filter((node) => node.nodeType === Node.ELEMENT_NODE && !SKIPPED.has(tagOf(node)) && node.tagName !== "BR");
      if (!inner.length) {
        const text = collapse(nodes.map((node) => (node.nodeType === Node.TEXT_NODE ? node.data : " ")).join(""));
        if (!text) { box(el, context); return; }
        if (context.mute || !isDrawn(el) || isShrunk(el, styleOf(el))) return;
        const role = context.clickable ? (el.tagName === "LI" ? "item" : "clickable") : TEXT_ROLES[tagOf(el)] || "text";
        // Sides of a solid are told apart by colour alone.
        const side = el.parentElement && el.closest("[style*='rotateX'], [style*='rotate3d']");
        const extra = side ? { value: drawing.color(styleOf(el).color) } : {};
        emit(el, role, text, { ref: refOf(el), ...extra });
        return;
      }
      let run = "";
      for (const node of nodes) {
        if (node.nodeType === Node.TEXT_NODE) run += node.data;
        else if (node.nodeType === Node.ELEMENT_NODE) {
          if (!context.mute && context.visible) emitText(run);
          run = "";
          visit(node, context);
        }
      }
      if (!context.mute && context.visible) emitText(run);
    }

    function visit(el, context) {
      if (++visited > MAX_NODES) { if (visited === MAX_NODES + 1) truncated++; return; }
      if (SKIPPED.has(tagOf(el)) || el.tagName === "BR" || consumed.has(el)) return;
      if (options.exclude && el.matches(options.exclude)) return;
      const role = controlRole(el);
      const style = styleOf(el);
      if (isHidden(el, style) && !(role && standIn(el))) return;
      context = { ...context, visible: style.visibility === "visible" };
      if (el.tagName === "IFRAME") {
        let inside = null;
        try { inside = el.contentDocument; } catch { /* another origin */ }
        if (inside && inside.body) visit(inside.body, { pointer: false, clickable: false, mute: false, visible: true });
        return;
      }
      if (el instanceof SVGElement) { shape(el, { ...context, clickable: context.clickable || HANDLES.has(style.cursor) }); return; }
      if (role) { active(el, role, style, context); return; }
      if (el.tagName === "DETAILS" && !el.open) {
        const summary = [...el.children].find((child) => child.tagName === "SUMMARY");
        if (summary) visit(summary, context);
        return;
      }
      if (el.tagName === "LABEL" && labelled(el)) { descend(el, { ...context, mute: true }); return; }
      if (el.getAttribute("role") === "dialog" || el.getAttribute("role") === "alertdialog" || el.tagName === "DIALOG") {
        for (const id of (el.getAttribute("aria-labelledby") || "").split(/\s+/)) consumed.add(rootOf(el).getElementById(id));
        if (context.visible && isDrawn(el)) emit(el, "dialog", explicitName(el), {});
      } else if (el.tagName === "IMG" || el.tagName === "CANVAS") {
        picture(el, style, context);
        return;
      }
      const held = context.mute || !context.visible ? null : gripRole(el, style);
      if (held && isDrawn(el)) { grip(el, held, style); return; }
      const weak = context.mute ? null : weakRole(el, style, context);
      const listed = el.tagName === "LI" && (weak || context.clickable);
      if (listed && context.visible && treeItem(el, context)) return;
      const pointer = HANDLES.has(style.cursor);
      if ((weak || listed) && context.visible && isDrawn(el) && !holdsOthers(el)) {
        const name = contentName(el, false);
        if (name.length <= WHOLE_CHARS) { emitActive(el, listed ? "item" : weak, listed ? name : swatch(el, style) + name); return; }
      }
      if (!context.mute && context.visible && isIcon(style) && isDrawn(el)) {
        emit(el, context.clickable ? "clickable" : "image", contentName(el, false), { ref: refOf(el) });
        return;
      }
      descend(el, { ...context, pointer, clickable: (context.clickable && pointer) || Boolean(weak) });
    }

    function active(el, role, style, context) {
      if (!standIn(el) || (style.visibility !== "visible" && standIn(el) === el)) { descend(el, context); return; }
      if (role === "item" && treeItem(el, context)) return;
      const native = isControl(el) && el.tagName !== "BUTTON";
      const name = native || (role === "textbox" && el.isContentEditable) ? controlName(el, role) : contentName(el, true);
      emitActive(el, role, name);
      if (!native && !el.isContentEditable) descend(el, { ...context, pointer: true, clickable: false, mute: true });
    }

    function picture(el, style, context) {
      const name = explicitName(el) || collapse(el.getAttribute("alt") || el.getAttribute("title") || "");
      const weak = weakRole(el, style, context);
      if (context.mute || !context.visible || !isDrawn(el)) return;
      const canvas = el.tagName === "CANVAS";
      const told = name || weak || context.clickable;
      const shown = told && !canvas ? [] : drawing.parts(el, origin(el));
      if (told || canvas || shown.length) {
        const extra = canvas || shown.length ? { value: placeOf(el) } : {};
        const role = weak || context.clickable ? "clickable" : "image";
        emit(el, role, name || contentName(el, false) || el.tagName.toLowerCase(), { ref: refOf(el), ...extra });
      }
      for (const part of shown) emit(null, "shape", part.name, { value: part.value, box: part.box });
    }

    if (document.body) visit(document.body, { pointer: false, clickable: false, mute: false, visible: true });
    const chosen = getSelection();
    if (chosen.rangeCount && !chosen.isCollapsed) {
      const around = chosen.getRangeAt(0).commonAncestorContainer;
      const text = collapse(chosen.toString());
      if (text && !(options.exclude && (around.closest ? around : around.parentElement).closest(options.exclude))) {
        emit(null, "selection", text, {});
      }
    }
    return JSON.stringify({ url: location.href, title: document.title, elements: out, truncated });
  }

  // ---- finding elements for actions ---------------------------------------------------------------------------------

  const describe = (el) => {
    const name = cut(contentName(el, true), 40);
    return (controlRole(el) || el.tagName.toLowerCase()) + (name ? ` "${name}"` : "");
  };

  function find(ref) {
    const known = elements.get(ref);
    const el = known && known.deref();
    if (!known) return [null, `there is no element ${ref}`];
    if (!el || !el.isConnected) return [null, `element ${ref} is no longer on the page`];
    const visible = standIn(el);
    if (!visible) return [null, `element ${ref} is hidden`];
    if (el.matches(":disabled") || el.getAttribute("aria-disabled") === "true") return [null, `element ${ref} is disabled`];
    return [el, null, visible];
  }

  // The element at a point of the top viewport, through frames and open shadow roots.
  function hit(x, y) {
    let found = document.elementFromPoint(x, y);
    for (;;) {
      if (found && found.tagName === "IFRAME") {
        const box = found.getBoundingClientRect();
        let inside = null;
        try { inside = found.contentDocument; } catch { /* another origin */ }
        if (!inside) return found;
        x -= box.left + found.clientLeft;
        y -= box.top + found.clientTop;
        found = inside.elementFromPoint(x, y) || found;
        if (found.tagName === "IFRAME") continue;
      }
      const deeper = found && found.shadowRoot && found.shadowRoot.elementFromPoint(x, y);
      if (!deeper || deeper === found) return found;
      found = deeper;
    }
  }

  const within = (inner, outer) => {
    for (let el = inner; el; el = el.parentNode || el.host) if (el === outer) return true;
    return false;
  };

  // A point where the pointer reaches the element, which is scrolled into view for it or has to stay where it is:
  // {x, y} in the top viewport, or {error}.
  function locate(ref, still) {
    const [el, error, visible] = find(ref);
    if (error) return { error };
    if (!still && typeof visible.scrollIntoViewIfNeeded === "function") visible.scrollIntoViewIfNeeded();
    const [left, top] = originOf(el.ownerDocument.defaultView);
    let covering = null;
    for (const [across, down] of [[0.5, 0.5], [0.25, 0.5], [0.75, 0.5], [0.5, 0.25], [0.5, 0.75], [0.1, 0.1], [0.9, 0.1], [0.1, 0.9], [0.9, 0.9]]) {
      for (const box of visible.getClientRects()) {
        const right = Math.min(box.right, innerWidth - left), bottom = Math.min(box.bottom, innerHeight - top);
        const x0 = Math.max(box.left, -left), y0 = Math.max(box.top, -top);
        if (!hasArea(visible, right - x0, bottom - y0, 1)) continue;
        const x = left + x0 + (right - x0) * across, y = top + y0 + (bottom - y0) * down;
        const found = hit(x, y);
        if (found && (within(found, visible) || found === el || labelsOf(el).some((label) => within(found, label)))) return { x, y };
        covering = covering || found;
      }
    }
    return { error: covering ? `element ${ref} is covered by ${describe(covering)}` : `element ${ref} is out of view` };
  }

  // ---- fields ------------------------------------------------------------------------------------------------------

  const TYPED = new Set(["date", "time", "datetime-local", "month", "week", "color", "range"]);
  const UNTEXT = new Set(["checkbox", "radio", "button", "submit", "reset", "image", "file"]);
  const FORMATS = {
    date: "YYYY-MM-DD", time: "HH:MM", "datetime-local": "YYYY-MM-DDTHH:MM", month: "YYYY-MM", week: "YYYY-Www",
    color: "#rrggbb", range: "a number",
  };

  function announce(el) {
    el.dispatchEvent(new Event("input", { bubbles: true, composed: true }));
    el.dispatchEvent(new Event("change", { bubbles: true }));
  }

  // Focus a field and select what it holds: {insert: true} when the text is then to be typed, {} when it is in already.
  function prepareFill(ref, value) {
    const [el, error] = find(ref);
    if (error) return { error };
    const field = el.tagName === "INPUT" || el.tagName === "TEXTAREA";
    if (!(field && !UNTEXT.has(el.type)) && !el.isContentEditable) return { error: `element ${ref} is not a text field` };
    if (el.readOnly) return { error: `element ${ref} is read-only` };
    if (el.type === "number" && value !== "" && Number.isNaN(Number(value))) return { error: `element ${ref} takes a number` };
    el.focus();
    if (field && TYPED.has(el.type)) {
      const before = el.value;
      el.value = el.type === "color" ? value.toLowerCase() : value;
      if (el.value !== (el.type === "color" ? value.toLowerCase() : value) && !(el.type === "range" && !Number.isNaN(Number(value)))) {
        el.value = before;
        return { error: `element ${ref} takes ${FORMATS[el.type]}` };
      }
      announce(el);
      return {};
    }
    if (field) el.select();
    else el.ownerDocument.defaultView.getSelection().selectAllChildren(el);
    return { insert: true, empty: field ? !el.value : !el.textContent };
  }

  // Focus an element; a text field's caret goes to its end.
  function focus(ref, toEnd) {
    const [el, error] = find(ref);
    if (error) return { error };
    el.focus();
    if (toEnd && el.value && typeof el.setSelectionRange === "function") {
      try { el.setSelectionRange(el.value.length, el.value.length); } catch { /* a type without a caret */ }
    }
    if (rootOf(el).activeElement !== el && !within(rootOf(el).activeElement, el)) {
      // The page may take the focus away again; an element that can never have it is the agent's mistake.
      if (el.tabIndex < 0 && !el.isContentEditable) return { error: `element ${ref} cannot take the focus` };
    }
    return {};
  }

  function select(ref, wanted) {
    const [el, error] = find(ref);
    if (error) return { error };
    if (el.tagName !== "SELECT") return { error: `element ${ref} is not a list of options` };
    if (wanted.length > 1 && !el.multiple) return { error: `element ${ref} takes one option` };
    const options = [...el.options];
    const chosen = wanted.map((text) => options.find((option) => collapse(option.label) === collapse(text)) || options.find((option) => option.value === text));
    const missing = chosen.findIndex((option) => !option);
    if (missing >= 0) return { error: `element ${ref} has no option "${cut(wanted[missing], 60)}"` };
    const closed = chosen.findIndex((option) => option.disabled);
    if (closed >= 0) return { error: `option "${cut(wanted[closed], 60)}" is disabled` };
    el.focus();
    if (el.multiple) for (const option of options) option.selected = chosen.includes(option);
    else el.selectedIndex = chosen[0].index;
    announce(el);
    return {};
  }

  // For what else runs in this world (match.js, record.js): an element's number, and the element of a number.
  const ref = (el) => refs.get(el);
  const element = (number) => elements.get(number)?.deref();

  globalThis.dpoDriver = Object.freeze({ observe, locate, prepareFill, focus, select, ref, element });
})();
