// Asking the server: every question has a deadline; what is watched is asked again, and not sent again when unchanged.

const DEADLINE_MS = 20_000;
const EVERY_MS = 2_000;
const SLOWEST_MS = 30_000;
let pulse = () => {};

/** Be told whether the server answers: (true) or (false, why). */
export function onPulse(tell) {
  pulse = tell;
}

export class Refused extends Error {
  constructor(text, status) {
    super(text);
    this.status = status;
  }
}

/** The answer to one question: {tag, data}; data is undefined if it is the one that `tag` stands for. */
export async function ask(path, params = {}, signal = undefined, tag = null) {
  const kept = Object.entries(params).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const query = new URLSearchParams(kept).toString();
  const deadline = AbortSignal.timeout(DEADLINE_MS);
  const answer = await fetch(`/api/${path}${query ? `?${query}` : ""}`, {
    signal: signal ? AbortSignal.any([signal, deadline]) : deadline, cache: "no-store", credentials: "same-origin",
    headers: tag ? { "If-None-Match": tag } : {},
  });
  if (answer.status === 304) return { tag, data: undefined };
  const data = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(data.error ?? `the server said ${answer.status}`, answer.status);
  return { tag: answer.headers.get("ETag"), data };
}

/** Ask again and again until `signal` ends it; `show` gets every new answer, `fail` what went wrong before the first.
    `params` may be a function. Nothing is asked while nobody looks. */
export function watch(path, params, show, fail, signal, every = EVERY_MS) {
  let tag = null, wait = every, timer = 0, busy = false, shown = false, asked = "";
  const turn = async () => {
    if (busy || signal.aborted) return;
    clearTimeout(timer);
    if (!document.hidden) {
      busy = true;
      try {
        const given = typeof params === "function" ? params() : params;
        const said = JSON.stringify(given);
        const answer = await ask(path, given, signal, said === asked ? tag : null);
        pulse(true);
        wait = every;
        if (answer.data !== undefined && !signal.aborted) {
          shown = true;
          show(answer.data);
        }
        [tag, asked] = [answer.tag, said];
      } catch (error) {
        if (signal.aborted) return;
        const refused = error instanceof Refused;
        pulse(refused && error.status !== 401, refused ? error.message : "the server does not answer");
        if (!shown || refused) fail(refused ? error.message : "The server does not answer. This page goes on trying.");
        if (!refused) console.info(error.message);
        wait = Math.min(2 * wait, SLOWEST_MS);
      } finally {
        busy = false;
      }
    }
    if (!signal.aborted) timer = setTimeout(turn, wait);
  };
  document.addEventListener("visibilitychange", () => document.hidden || turn(), { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
  turn();
  return turn;
}
