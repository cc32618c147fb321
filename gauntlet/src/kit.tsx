// The pieces that all puzzles are drawn with, so that labels, classes and layout can vary by seed in one place.

import { useId, type CSSProperties, type ReactNode } from "react";

import { cx } from "./skin";
import type { Control } from "./puzzles/contract";

export function Button({ part, label, disabled, style }: Control & { disabled?: boolean; style?: CSSProperties }) {
  return (
    <button type="button" className={cx("button")} data-part={part} disabled={disabled} style={style}>
      {label}
    </button>
  );
}

// A text field of a form; `name` is a field of the puzzle, as `setup.part(name)` gives it. A field for numbers is one for
// text with another keyboard: the browser hides half-typed numbers, so that what was typed could not be followed.
export function Field({ name, label, type = "text", placeholder }: { name: string; label: string; type?: string; placeholder?: string }) {
  const id = useId();
  return (
    <div className={cx("field")}>
      <label htmlFor={id}>{label}</label>
      <input
        id={id}
        type={type === "number" ? "text" : type}
        inputMode={type === "number" ? "decimal" : undefined}
        data-field={name}
        placeholder={placeholder}
        autoComplete="off"
        spellCheck={false}
      />
    </div>
  );
}

export function Form({ children }: { children: ReactNode }) {
  return (
    <form className={cx("form")} data-form="" onSubmit={(event) => event.preventDefault()}>
      {children}
    </form>
  );
}

// A checkbox or radio button as the server sees it: a click on it is reported, and the server says whether it is on.
export function Tick({ part, label, on, kind = "checkbox" }: Control & { on: boolean; kind?: "checkbox" | "radio" }) {
  return (
    <label className={cx("tick")}>
      <input type={kind} checked={on} data-part={part} onChange={() => undefined} />
      {label}
    </label>
  );
}

export const Row = ({ children }: { children: ReactNode }) => <div className={cx("row")}>{children}</div>;
export const Column = ({ children }: { children: ReactNode }) => <div className={cx("column")}>{children}</div>;
export const Panel = ({ title, children }: { title?: string; children: ReactNode }) => (
  <section className={cx("panel")} aria-label={title}>
    {title && <h3>{title}</h3>}
    {children}
  </section>
);
export const Note = ({ children }: { children: ReactNode }) => <p className={cx("note")}>{children}</p>;
