// A confusion matrix on a canvas. The page defines `confusion`: the names in their order, and the counts, a row for
// each true class. Pointer, touch or arrow keys choose a cell, whose figures are written below; a search finds a class.
(() => {
  const {names, counts} = confusion, size = names.length;
  const totals = counts.map(row => row.reduce((sum, count) => sum + count, 0));
  const find = id => document.getElementById(id);
  const canvas = find("confusion-canvas"), told = find("confusion-told"), search = find("confusion-search");
  const viewport = find("confusion-viewport");
  const context = canvas.getContext("2d");
  // Four digits fit into the smallest cell that has any.
  const short = new Intl.NumberFormat("en", {notation: "compact", maximumFractionDigits: 0});
  const compact = count => count < 10000 ? count : short.format(count);
  const whole = count => count.toLocaleString("en");
  let zoom = 1, chosen = null, found = new Set();

  const labeled = () => cellSize() >= 11;
  const longest = Math.max(...names.map(name => Math.min(name.length, 24)));
  const margin = () => labeled() ? Math.ceil(longest * 6.3) + 10 : 4;
  function cellSize() {
    const least = size <= 20 ? 26 : 3;
    const side = (Math.min(viewport.clientWidth, size <= 20 ? 520 : 760) - (size <= 20 ? longest * 6.3 + 20 : 12)) / size;
    return Math.max(least, side) * zoom;
  }

  function draw() {
    const style = getComputedStyle(document.documentElement), color = name => style.getPropertyValue(name).trim();
    const cell = cellSize(), edge = margin(), side = edge + cell * size + 4, ratio = window.devicePixelRatio || 1;
    canvas.style.width = canvas.style.height = `${side}px`;
    canvas.width = canvas.height = Math.round(side * ratio);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = color("--panel");
    context.fillRect(edge, edge, cell * size, cell * size);
    context.font = "11px system-ui, sans-serif";
    for (let row = 0; row < size; row++) {
      for (let column = 0; column < size; column++) {
        const share = counts[row][column] / (totals[row] || 1);
        if (!share) continue;
        // The square root keeps rare confusions visible.
        context.globalAlpha = 0.08 + 0.92 * Math.sqrt(share);
        context.fillStyle = color(row === column ? "--series-2" : "--series-1");
        context.fillRect(edge + column * cell, edge + row * cell, Math.max(cell - 0.5, 1), Math.max(cell - 0.5, 1));
        context.globalAlpha = 1;
        if (cell >= 24) {
          context.fillStyle = color(Math.sqrt(share) > 0.6 ? "--paper" : "--ink");
          context.textAlign = "center";
          context.fillText(compact(counts[row][column]), edge + (column + 0.5) * cell, edge + (row + 0.5) * cell + 4);
        }
      }
    }
    if (labeled()) drawNames(cell, edge, color);
    for (const index of found) outline(edge, edge + index * cell, cell * size, cell, color("--accent"), 1.5);
    for (const index of found) outline(edge + index * cell, edge, cell, cell * size, color("--accent"), 1.5);
    if (chosen) outline(edge + chosen[1] * cell, edge + chosen[0] * cell, cell, cell, color("--ink"), 2);
  }

  function drawNames(cell, edge, color) {
    context.fillStyle = color("--ink");
    names.forEach((name, index) => {
      const shown = name.length > 24 ? name.slice(0, 23) + "…" : name;
      context.textAlign = "right";
      context.fillText(shown, edge - 4, edge + (index + 0.5) * cell + 4);
      context.save();
      context.translate(edge + (index + 0.5) * cell + 4, edge - 4);
      context.rotate(-Math.PI / 2);
      context.textAlign = "left";
      context.fillText(shown, 0, 0);
      context.restore();
    });
  }

  function outline(x, y, width, height, color, line) {
    context.strokeStyle = color;
    context.lineWidth = line;
    context.strokeRect(x, y, width, height);
  }

  function choose(row, column) {
    chosen = [Math.min(Math.max(row, 0), size - 1), Math.min(Math.max(column, 0), size - 1)];
    const [a, b] = chosen, count = counts[a][b];
    const share = totals[a] ? (100 * count / totals[a]).toFixed(1) : "0.0";
    told.textContent = a === b
      ? `${names[a]}: ${whole(count)} of ${whole(totals[a])} right (${share}%)`
      : `${names[a]} taken for ${names[b]}: ${whole(count)} of ${whole(totals[a])} (${share}%)`;
    draw();
  }

  function chooseAt(event) {
    const box = canvas.getBoundingClientRect(), cell = cellSize(), edge = margin();
    const column = Math.floor((event.clientX - box.left - edge) / cell);
    const row = Math.floor((event.clientY - box.top - edge) / cell);
    if (row >= 0 && row < size && column >= 0 && column < size) choose(row, column);
  }

  canvas.addEventListener("pointermove", chooseAt);
  canvas.addEventListener("pointerdown", chooseAt);
  canvas.addEventListener("keydown", event => {
    const step = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
    if (!step) return;
    event.preventDefault();
    const [row, column] = chosen || [0, 0];
    choose(chosen ? row + step[0] : 0, chosen ? column + step[1] : 0);
  });
  search.addEventListener("input", () => {
    const wanted = search.value.trim().toLowerCase();
    found = new Set(wanted ? [...names.keys()].filter(index => names[index].toLowerCase().includes(wanted)) : []);
    if (found.size === 1) choose([...found][0], [...found][0]);
    else told.textContent = wanted ? `${found.size} classes found` : "";
    draw();
  });
  const zoomBy = factor => { zoom = Math.min(Math.max(zoom * factor, 1), 16); draw(); };
  find("confusion-in").addEventListener("click", () => zoomBy(1.5));
  find("confusion-out").addEventListener("click", () => zoomBy(1 / 1.5));
  window.addEventListener("resize", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
})();
