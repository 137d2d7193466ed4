// Ranks hits of the search: `html_search_scorer`. An exact name comes first, then what the
// guides say, then the API reference, short names before long ones.
Scorer.objNameMatch = 30;
Scorer.score = ([page, title, anchor, description, score, file, kind]) => {
  if (kind === "object") return score - title.length / 100;
  return page.startsWith("api/generated/") ? score : score + 3;
};
