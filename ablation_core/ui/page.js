// What the pages do in the browser, once per tab. Nothing here asks the outside for anything.
if (!window.ablationExplorer) {
  window.ablationExplorer = true;

  // Streamlit pushes an entry into the history for each setting that it writes into the address, so that a change of page
  // made three, and Back showed other settings on the same page. One entry per page: settings replace it. Before a change of
  // page Streamlit clears them from the address; the entry that is left keeps them.
  const push = history.pushState.bind(history);
  let clearing;
  history.pushState = (state, title, address) => {
    const there = new URL(address ?? location.href, location.href);
    const replace = () => history.replaceState(state, title, address);
    clearTimeout(clearing);
    if (there.pathname !== location.pathname) push(state, title, address);
    else if ([...new URL(location.href).searchParams.keys()].some(name => !there.searchParams.has(name)))
      clearing = setTimeout(replace, 1000);
    else replace();
  };

  // A button with `data-copy` copies that, or the page's address where it is empty, and says so.
  const copied = async text => {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    const area = Object.assign(document.createElement("textarea"), {value: text}); // no secure address: a server by its IP
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  };
  document.addEventListener("click", async event => {
    const button = event.target.closest?.("[data-copy]");
    if (!button) return;
    const label = button.textContent;
    await copied(button.dataset.copy || location.href);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = label; }, 1500);
  });

  // The cells of a clickable map by keyboard: Tab reaches the map, arrows move between cells, Enter or Space clicks.
  const charts = "[class*='st-key-clickable'] .stVegaLiteChart", cells = charts + " g.mark-rect > path";
  let waiting = false;
  new MutationObserver(() => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      for (const chart of document.querySelectorAll(charts)) {
        if (!chart.querySelector("path[tabindex]")) chart.querySelector("g.mark-rect > path")?.setAttribute("tabindex", "0");
      }
    });
  }).observe(document.body, {childList: true, subtree: true});
  const middle = one => {
    const box = one.getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height / 2];
  };
  const ways = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
  document.addEventListener("keydown", event => {
    const cell = event.target.closest?.(cells);
    if (!cell) return;
    const way = ways[event.key], [x, y] = middle(cell);
    if (event.key === "Enter" || event.key === " ") {
      cell.dispatchEvent(new MouseEvent("click", {bubbles: true, view: window, clientX: x, clientY: y}));
    } else if (way) {
      const beside = [...cell.parentNode.children].map(one => {
        const [dx, dy] = middle(one).map((at, axis) => at - [x, y][axis]), ahead = dx * way[0] + dy * way[1];
        return [ahead > 1 ? ahead + 5 * Math.abs(dx * way[1] + dy * way[0]) : Infinity, one];
      }).sort((one, other) => one[0] - other[0])[0];
      if (beside[0] < Infinity) {
        cell.setAttribute("tabindex", "-1");
        beside[1].setAttribute("tabindex", "0");
        beside[1].focus();
      }
    } else return;
    event.preventDefault();
  });

  // A token's details, by click, or by keyboard: Tab reaches the text, arrows move between tokens, Enter or Space opens.
  const details = Object.assign(document.createElement("div"), {popover: "auto", className: "token-details"});
  details.setAttribute("role", "status");
  document.body.append(details);
  const open = token => {
    const box = token.getBoundingClientRect();
    details.textContent = token.dataset.details;
    details.showPopover();
    const {offsetWidth: width, offsetHeight: height} = details, below = box.bottom + 6;
    details.style.left = `${Math.max(8, Math.min(box.left, innerWidth - width - 8))}px`;
    details.style.top = `${below + height < innerHeight ? below : Math.max(8, box.top - height - 6)}px`;
  };
  document.addEventListener("click", event => {
    const token = event.target.closest?.("[data-details]");
    if (token) open(token);
  });
  document.addEventListener("keydown", event => {
    const token = event.target.closest?.("[data-details]");
    if (!token) return;
    const all = [...token.parentNode.querySelectorAll("[data-details]")];
    const next = all[all.indexOf(token) + {ArrowLeft: -1, ArrowRight: 1}[event.key]];
    if (event.key === "Enter" || event.key === " ") open(token);
    else if (next) {
      token.setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus();
    } else return;
    event.preventDefault();
  });
}
