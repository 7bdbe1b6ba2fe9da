"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  const node = (name, attributes = {}, parent = null) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (parent) parent.append(made);
    return made;
  };
  const text = (name, className, words) => {
    const made = document.createElement(name);
    made.className = className;
    made.textContent = words;
    return made;
  };
  const number = (value) => (Math.abs(value) >= 100 ? Math.round(value).toLocaleString("en") : String(+value.toPrecision(3)));
  // where a pointer stands in the units of a drawing
  const place = (svg, event) => {
    const box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
    return [(event.clientX - box.left) / box.width * view.width, (event.clientY - box.top) / box.height * view.height];
  };

  // one sound at a time; its button says what a click does
  const player = new Audio();
  let pressed = null;
  const rest = () => {
    if (pressed) { pressed.textContent = "▶"; pressed.setAttribute("aria-pressed", "false"); }
    pressed = null;
  };
  player.addEventListener("ended", rest);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.play");
    if (!button) return;
    const again = button === pressed;
    player.pause();
    rest();
    if (again) return;
    player.src = data.sounds[button.dataset.run][button.dataset.sound];
    pressed = button;
    button.textContent = "■";
    button.setAttribute("aria-pressed", "true");
    player.play().catch(() => { if (pressed === button) rest(); });  // another's click ends this one's promise too
  });

  for (const svg of document.querySelectorAll("svg.chart")) {
    const lines = data.charts[svg.dataset.key];
    const reading = document.querySelector(`output[data-for="${svg.dataset.key}"]`);
    const cursor = svg.querySelector(".cursor"), view = svg.viewBox.baseVal;
    const resting = reading.textContent;
    const nearest = (points, x) => points.reduce((best, p) => (Math.abs(p[0] - x) < Math.abs(best[0] - x) ? p : best));
    const xs = [...new Set(lines.flatMap((line) => line.data.map((p) => p[0])))].sort((a, b) => a - b);
    let at = null;
    const show = (x) => {
      const found = lines.map((line) => [line.name, nearest(line.data, x)]);
      at = nearest(xs.map((value) => [value]), x)[0];
      cursor.setAttribute("d", `M${at} 8V${view.height - 30}`);
      const values = found.map(([name, p]) => (lines.length > 1 ? `${name} ${number(p[3])}` : number(p[3])));
      reading.textContent = `step ${Math.round(nearest(found.map(([, p]) => p), at)[2]).toLocaleString("en")}: ${values.join("; ")}`;
    };
    const hide = () => { cursor.setAttribute("d", ""); reading.textContent = resting; at = null; };
    svg.addEventListener("pointermove", (event) => show(place(svg, event)[0]));
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      event.preventDefault();
      const now = at === null ? xs.length : xs.indexOf(at);
      const next = at === null ? xs.length - 1 : now + (event.key === "ArrowRight" ? 1 : -1);
      show(xs[Math.min(xs.length - 1, Math.max(0, next))]);
    });
  }

  for (const box of document.querySelectorAll(".map-box")) {
    const run = box.dataset.run, map = data.maps[run];
    const svg = box.querySelector("svg.map"), here = box.querySelector(".here"), links = box.querySelector(".links");
    const picked = box.querySelector(".picked");
    let current = null, pinned = false;
    const describe = (i) => {
      const label = map.labels[i];
      return label === null ? map.names[i] : `${map.names[i]}, ${map.classes[label]}`;
    };
    const thumb = (i, size) => {
      const side = map.side;
      const x = (i % map.columns) * side, y = Math.floor(i / map.columns) * side;
      const made = node("svg", { class: side >= 48 ? "thumb fine" : "thumb", width: size, height: size,
        viewBox: `${x} ${y} ${side} ${side}`, role: "img", "aria-label": describe(i) });
      node("use", { href: `#thumbs-${run}` }, made);
      return made;
    };
    const closest = (x, y, allowed = () => true) => {
      let best = null, distance = Infinity;
      map.points.forEach(([px, py], i) => {
        const d = (px - x) ** 2 + (py - y) ** 2;
        if (d < distance && allowed(px, py, i)) { best = i; distance = d; }
      });
      return [best, Math.sqrt(distance)];
    };
    const show = (i, pin) => {
      if (i === current && pin === pinned) return;
      current = i; pinned = pin;
      here.setAttribute("cx", map.points[i][0]);
      here.setAttribute("cy", map.points[i][1]);
      links.replaceChildren();
      picked.replaceChildren(thumb(i, 128));
      const name = text("p", "name", ""), bdi = document.createElement("bdi");
      bdi.textContent = map.names[i];
      name.append(bdi);
      picked.append(name);
      if (data.sounds[run] && data.sounds[run][i]) {
        const button = text("button", "play", "▶");
        button.type = "button";
        Object.assign(button.dataset, { run, sound: i });
        button.setAttribute("aria-label", `Play ${describe(i)}`);
        picked.append(button);
      }
      if (map.labels[i] !== null) picked.append(text("p", "unit", `class ${map.classes[map.labels[i]]}`));
      if (!pin) return;
      picked.append(text("p", "small", "Nearest neighbours, with their cosine similarity:"));
      const list = document.createElement("ul");
      list.className = "near";
      map.neighbours[i].forEach((other, k) => {
        const item = document.createElement("li");
        item.append(thumb(other, 56), text("span", "", map.similarity[i][k].toFixed(2)));
        list.append(item);
        const [x, y] = map.points[other];
        node("path", { d: `M${map.points[i][0]} ${map.points[i][1]}L${x} ${y}` }, links);
        node("circle", { cx: x, cy: y, r: 6 }, links);
      });
      picked.append(list);
    };
    const reach = () => 24 * svg.viewBox.baseVal.width / Math.max(1, svg.getBoundingClientRect().width);
    svg.addEventListener("pointermove", (event) => {
      if (pinned) return;
      const [i, distance] = closest(...place(svg, event));
      if (i !== null && distance < reach()) show(i, false);
    });
    svg.addEventListener("click", (event) => {
      const [i, distance] = closest(...place(svg, event));
      if (i === null || distance >= reach()) { pinned = false; links.replaceChildren(); return; }
      if (pinned && i === current) show(i, false); else show(i, true);
    });
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    svg.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { pinned = false; links.replaceChildren(); return; }
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        if (current !== null) show(current, true);
        return;
      }
      const way = ways[event.key];
      if (!way) return;
      event.preventDefault();
      const view = svg.viewBox.baseVal;
      const [x, y] = current === null ? [view.width / 2, view.height / 2] : map.points[current];
      // inside the quarter that the key points to
      const ahead = (px, py, i) => {
        const dx = px - x, dy = py - y, along = dx * way[0] + dy * way[1];
        return i !== current && along > 0 && along >= Math.abs(dx * way[1] + dy * way[0]);
      };
      const [i] = current === null ? closest(x, y) : closest(x, y, ahead);
      if (i !== null) show(i, false);
    });
    for (const button of box.querySelectorAll("button[data-label]")) {
      button.addEventListener("click", () => {
        const on = button.getAttribute("aria-pressed") !== "true";
        for (const other of box.querySelectorAll("button[data-label]")) other.setAttribute("aria-pressed", "false");
        button.setAttribute("aria-pressed", String(on));
        svg.classList.toggle("dimmed", on);
        for (const mark of svg.querySelectorAll(".mark")) mark.classList.toggle("chosen", on && mark.dataset.label === button.dataset.label);
      });
    }
  }

  // what is folded away on the screen is wanted on paper
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const one of opened) one.open = true;
  });
  addEventListener("afterprint", () => { for (const one of opened) one.open = false; });
})();
