// Reads the page's own records of the network and of what it did.

const texts = performance.getEntries().map((entry) => JSON.stringify(entry));
const watched = PerformanceObserver.supportedEntryTypes.map((type) => new Promise((done) => {
  const written = (entries) => entries.map((entry) => JSON.stringify(entry));
  const watch = new PerformanceObserver((list) => done(written(list.getEntries())));
  watch.observe({ type, buffered: true });
  setTimeout(() => { done(written(watch.takeRecords())); watch.disconnect(); }, 20);
}));
texts.push(...(await Promise.all(watched)).flat());
if (window.ReportingObserver) {
  const reports = new ReportingObserver(() => 0, { buffered: true });
  reports.observe();
  texts.push(JSON.stringify(reports.takeRecords()));
}
return texts;
