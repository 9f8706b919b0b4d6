"use strict";
// Tables: a heading's button sorts by its column, and sorts the other way when pressed again.
const seconds = { h: 3600, min: 60, s: 1 };
const number = text => {
  const parts = [...text.matchAll(/([\d.]+) (h|min|s)\b/g)];  // of a duration, "1 h 20 min"
  return parts.length ? parts.reduce((sum, [, count, unit]) => sum + count * seconds[unit], 0)
    : parseFloat(text.replaceAll(",", ""));
};
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
    const numeric = head.classList.contains("number");
    const before = head.getAttribute("aria-sort");
    const down = before ? before === "ascending" : numeric;
    const value = row => {
      const text = row.cells[column].textContent.trim();
      return numeric ? number(text) : text;
    };
    const rows = [...table.tBodies[0].rows].map(row => [value(row), row]);
    rows.sort(([a], [b]) => {
      if (numeric && (isNaN(a) || isNaN(b))) return isNaN(a) - isNaN(b);
      const order = numeric ? a - b : a.localeCompare(b, undefined, { numeric: true });
      return down ? -order : order;
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
  }));
}
for (const input of document.querySelectorAll("[data-filter]")) {
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase();
    for (const row of document.getElementById(input.dataset.filter).tBodies[0].rows)
      row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
  });
}
for (const box of document.querySelectorAll("[data-differs]")) {
  const show = () => document.querySelector(`#${box.dataset.differs} table`)
    .classList.toggle("differences", box.checked);
  box.addEventListener("change", show);
  show();
}
// Curves: the pointer or the arrow keys choose an epoch; the values there are written below.
const drawn = "http://www.w3.org/2000/svg";
for (const plot of document.querySelectorAll(".plot")) {
  const svg = plot.querySelector("svg"), cursor = plot.querySelector(".cursor");
  const output = plot.parentElement.querySelector(".values-at");
  const { first, last, left, right, width } = Object.fromEntries(
    Object.entries(plot.dataset).map(([name, value]) => [name, Number(value)]));
  let curves, places, at = -1;
  const read = () => {
    if (curves) return;
    curves = [...plot.querySelectorAll("path.line")].map(path => ({
      path, name: path.dataset.name, x: path.dataset.x.split(" ").map(Number),
      y: path.dataset.y.split(" "), dot: document.createElementNS(drawn, "circle"),
      at: path.getAttribute("d").slice(1).split("L").map(pair => pair.split(",")) }));
    places = [...new Set(curves.flatMap(curve => curve.x))].sort((a, b) => a - b);
    for (const curve of curves) {
      curve.dot.setAttribute("r", 4);
      curve.dot.setAttribute("class", curve.path.getAttribute("class"));
      cursor.append(curve.dot);
    }
  };
  const nearest = (values, wanted) => {
    let low = 0, high = values.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (values[middle] < wanted) low = middle; else high = middle;
    }
    return wanted - values[low] <= values[high] - wanted ? low : high;
  };
  const show = place => {
    read();
    at = Math.max(0, Math.min(places.length - 1, place));
    const x = places[at];
    const line = cursor.querySelector("line");
    const across = left + (right - left) * (x - first) / (last - first);
    line.setAttribute("x1", across);
    line.setAttribute("x2", across);
    cursor.setAttribute("visibility", "visible");
    const known = curves.filter(curve => {
      const end = curve.x.length - 1, gap = 2 * (curve.x[end] - curve.x[0]) / (end || 1);
      const within = x >= curve.x[0] - gap && x <= curve.x[end] + gap;  // not of a run that ended
      curve.dot.setAttribute("visibility", within ? "inherit" : "hidden");
      return within;
    });
    output.textContent = `epoch ${+x.toFixed(3)}: ` + known.map(curve => {
      const point = nearest(curve.x, x);
      curve.dot.setAttribute("cx", curve.at[point][0]);
      curve.dot.setAttribute("cy", curve.at[point][1]);
      return `${curve.name} ${curve.y[point]}`;
    }).join(", ");
  };
  plot.addEventListener("pointermove", event => {
    read();
    const box = svg.getBoundingClientRect();
    const place = (event.clientX - box.left) / box.width * width;
    show(nearest(places, first + (last - first) * (place - left) / (right - left)));
  });
  plot.addEventListener("focus", () => show(at < 0 ? Infinity : at));
  plot.addEventListener("keydown", event => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
    if (!(event.key in steps)) return;
    event.preventDefault();
    show(at + steps[event.key]);
  });
}
