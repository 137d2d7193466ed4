// The hits of Sphinx's own search: `node search.js BUILD QUERY...` prints, as JSON, for
// each query a list of [page, title, anchor, score], best first.
const fs = require("fs"), path = require("path"), vm = require("vm");
const [build, ...queries] = process.argv.slice(2);

const context = vm.createContext({
  document: { getElementById: () => null },
  _: (text) => text,
  _ready: () => {},
  SPHINX_HIGHLIGHT_ENABLED: false,
});
context.window = context;
const run = (file) =>
  vm.runInContext(fs.readFileSync(path.join(build, file), "utf8"), context);
run("_static/searchtools.js");
run("_static/language_data.js");
run("searchindex.js");
run("_static/some_words.js");

const find = vm.runInContext(
  "(query) => Search._performSearch(...Search._parseQuery(query)).reverse()", context);
const hits = queries.map((query) => find(query).map((hit) => [...hit.slice(0, 3), hit[4]]));
console.log(JSON.stringify(hits));
