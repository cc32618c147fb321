// The frame around the puzzles: start, step, finish. Two skins lay it out differently.

import { useEffect, useRef } from "react";

import type { AnyPage, ErrorPage, FinishPage, StartPage, StepPage } from "./contract";
import { Distractors, coversPage } from "./distractors";
import { Button } from "./kit";
import { components } from "./registry";
import { cx } from "./skin";

export function App({ page, closed }: { page: AnyPage | null; closed: boolean }) {
  if (!page) return closed ? <Lost /> : null;
  return (
    <>
      {closed && <Lost />}
      {page.page === "start" && <Start page={page} />}
      {page.page === "step" && <Step key={page.step} page={page} />}
      {page.page === "finish" && <Finish page={page} />}
      {page.page === "error" && <Broken page={page} />}
    </>
  );
}

const Lost = () => (
  <div role="alert" className={cx("lost")}>
    The connection to this page has ended. Reload the page to go on.
  </div>
);

// A new page begins at its top, for eyes and for screen readers.
function useArrival() {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    window.scrollTo(0, 0);
    heading.current?.focus({ preventScroll: true });
  }, []);
  return heading;
}

function Start({ page }: { page: StartPage }) {
  const heading = useArrival();
  return (
    <main className={cx("page", "plain")}>
      <h1 ref={heading} tabIndex={-1}>{page.name}</h1>
      <p>{page.text}</p>
      <Button {...page.button} />
    </main>
  );
}

function Finish({ page }: { page: FinishPage }) {
  const heading = useArrival();
  return (
    <main className={cx("page", "plain")}>
      <h1 ref={heading} tabIndex={-1}>{page.title}</h1>
      <p role="status">{page.text}</p>
    </main>
  );
}

const Broken = ({ page }: { page: ErrorPage }) => (
  <main className={cx("page", "plain")}>
    <h1>Something is broken</h1>
    <p role="alert">{page.text}</p>
  </main>
);

function Step({ page }: { page: StepPage }) {
  const covered = coversPage(page.distractors);
  const Layout = page.skin === "a" ? Column : Sides;
  return (
    <>
      <div className={cx("page")} inert={covered}>
        <Layout page={page} />
      </div>
      <Distractors page={page} place="above" />
    </>
  );
}

// Skin "a": one below the other.
function Column({ page }: { page: StepPage }) {
  const [form, puzzle] = [<CodeForm key="form" page={page} />, <Puzzle key="puzzle" page={page} />];
  return (
    <>
      <Header page={page} />
      <main className={cx("main")}>{page.look.form === "first" ? [form, puzzle] : [puzzle, form]}</main>
      <Distractors page={page} place="beside" />
      <Distractors page={page} place="after" />
    </>
  );
}

// Skin "b": heading and code at the side, and traps before the puzzle.
function Sides({ page }: { page: StepPage }) {
  const side = (
    <div key="side" className={cx("side")}>
      <Header page={page} />
      <CodeForm page={page} />
    </div>
  );
  const wide = (
    <div key="wide" className={cx("wide")}>
      <Distractors page={page} place="beside" />
      <main className={cx("main")}>
        <Puzzle page={page} />
      </main>
      <Distractors page={page} place="after" />
    </div>
  );
  return [side, wide];
}

function Header({ page }: { page: StepPage }) {
  const heading = useArrival();
  const name = <p className={cx("name")}>{page.name}</p>;
  const done = (100 * (page.step - 1)) / page.steps;
  return (
    <header className={cx("header")}>
      {page.skin === "a" && name}
      <h1 ref={heading} tabIndex={-1}>
        {page.heading}
      </h1>
      <div
        className={cx("progress")}
        aria-hidden="true"
        style={{ backgroundImage: `linear-gradient(90deg, var(--main) ${done}%, var(--line) ${done}%)` }}
      />
      {page.skin === "b" && name}
    </header>
  );
}

function Puzzle({ page }: { page: StepPage }) {
  const Component = components[page.puzzle];
  return (
    <section className={cx("puzzle")} aria-label={page.region}>
      <h2>{page.view.title}</h2>
      <p className={cx("text")}>{page.view.text}</p>
      {Component ? <Component view={page.view} /> : <p role="alert">There is no component for {page.puzzle}.</p>}
      <p role="status" className={cx("reveal", page.view.reveal && "shown")}>{page.view.reveal}</p>
    </section>
  );
}

// The code is what the sealed script saw being typed; what stands in the field is for the eye.
function CodeForm({ page }: { page: StepPage }) {
  const { name, field, submit, message } = page.form;
  return (
    <form className={cx("code")} data-form="" aria-label={name} onSubmit={(event) => event.preventDefault()}>
      <label className={cx("label")}>
        <span>{field.label}</span>
        <input type="text" data-field={field.part} autoComplete="off" autoCapitalize="characters" spellCheck={false} />
      </label>
      <Button {...submit} />
      <p role="alert" className={cx("message")}>{message}</p>
    </form>
  );
}
