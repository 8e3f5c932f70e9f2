// The few things that the page does to its document. Text is only ever set as text, and only where it changed: a screen reader is told
// of changes, not of every half second.

export const at = (id) => document.getElementById(id);

export function say(id, text) {
  const element = at(id);
  if (element.textContent !== text) element.textContent = text;
}

/** Sets a paragraph that is there only while it has something to say. */
export function sayOrHide(id, text) {
  say(id, text);
  at(id).hidden = text === '';
}

/** `make('li', { className: 'row' }, 'text', child)` */
export function make(tag, properties, ...children) {
  const element = document.createElement(tag);
  Object.assign(element, properties);
  element.append(...children);
  return element;
}

/** An element of SVG with its attributes. */
export function draw(tag, attributes, ...children) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/** Rows of a table's body; the first cell of each heads it. `none`: what is said where there are no rows. */
export function rows(id, lists, none) {
  const body = at(id);
  const key = JSON.stringify(lists);
  if (body.dataset.key === key) return;
  body.dataset.key = key;
  if (lists.length === 0) {
    const columns = body.closest('table').querySelectorAll('thead th').length;
    body.replaceChildren(make('tr', {}, make('td', { className: 'none', colSpan: columns }, none)));
    return;
  }
  const row = ([first, ...cells]) =>
    make('tr', {}, make('th', { scope: 'row' }, String(first)), ...cells.map((text) => make('td', {}, String(text))));
  body.replaceChildren(...lists.map(row));
}
