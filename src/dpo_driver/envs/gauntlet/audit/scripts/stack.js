// Looks up the call stack from every function that the sealed script may call into.

const log = (window.stacks = []);
Error.stackTraceLimit = 100;
const source = (one) => (typeof one === "function" ? Function.prototype.toString.call(one) : String(one));
Error.prepareStackTrace = (error, sites) => {
  for (const site of sites) {
    log.push(...[site.getFunction?.(), site.getThis?.(), site.getEvalOrigin?.(), site.getFunctionName?.()].map(source));
  }
  return String(error);
};
const look = function look() {
  log.push(String(new Error("look").stack));
  try {
    log.push(String(look.caller));
  } catch (error) {
    log.push(String(error));
  }
};
gauntlet.subscribe(look);
gauntlet.subscribe(() => {
  const fall = () => fall();
  try {
    fall();
  } catch {
    look();
  }
});
window.addEventListener("keydown", look, true);
window.addEventListener("error", look, true);
