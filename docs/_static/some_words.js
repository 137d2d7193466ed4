// Sphinx's search finds the pages that have all words. Where there are none, this finds
// those that have some of them, those with most words first.
const findAll = Search._performSearch;

function findSome(excluded, words) {
  const pages = new Map();
  for (const word of words) {
    const stem = new Set([new Stemmer().stemWord(word)]);
    const hits = findAll(word, stem, excluded, new Set([word]), new Set([word]));
    for (const page of new Set(hits.map((hit) => hit[0]))) {
      // The last hit of a page is its best.
      const best = hits.findLast((hit) => hit[0] === page);
      const { found = [], hit = best } = pages.get(page) ?? {};
      pages.set(page, { found: [...found, word], hit: hit[4] < best[4] ? best : hit });
    }
  }
  const order = (a, b) => a.found.length - b.found.length || a.hit[4] - b.hit[4];
  return [...pages.values()].sort(order).map(({ found, hit }) => {
    const missing = words.filter((word) => !found.includes(word)).join(", ");
    return [hit[0], `${hit[1]} (without: ${missing})`, ...hit.slice(2)];
  });
}

Search._performSearch = (query, stems, excluded, words, names) => {
  const hits = findAll(query, stems, excluded, words, names);
  return hits.length || words.size < 2 ? hits : findSome(excluded, [...words]);
};
