// Elements without a framework. Texts are set as texts, never as HTML.
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (name === "style") Object.assign(node.style, value);
    else if (name in node && name !== "list") node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export const count = (value) => Math.round(value).toLocaleString("en-US");

export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  const size = Math.abs(value);
  if (size >= 1000) return count(value);
  return size !== 0 && size < 0.001 ? value.toExponential(2) : String(+value.toPrecision(4));
}

let timer;
export function toast(text) {
  document.querySelector(".toast")?.remove();
  const node = el("div", { class: "toast", role: "status" }, text);
  document.body.append(node);
  clearTimeout(timer);
  timer = setTimeout(() => node.remove(), 4000);
}

export function debounced(wait, call) {
  let pending;
  return () => {
    clearTimeout(pending);
    pending = setTimeout(call, wait);
  };
}
