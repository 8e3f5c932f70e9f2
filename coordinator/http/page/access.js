// The token that this page shows where the coordinator asks for one: from the address (`/#token=...`: no request carries that part), or from the
// reader. It is kept for this tab alone, and leaves the address at once, so that it is in no history and on no screen.

import { at, sayOrHide } from './dom.js';

const KEPT_AS = 'lockstep-token';

let token = sessionStorage.getItem(KEPT_AS) ?? '';
/** Waits for another token to be given. */
let wake = () => {};

function keep(text) {
  token = text.trim();
  sessionStorage.setItem(KEPT_AS, token);
}

function takeFromAddress() {
  const given = new URLSearchParams(location.hash.slice(1)).get('token');
  if (given === null) return false;
  keep(given);
  history.replaceState(null, '', location.pathname + location.search);
  return true;
}

/** What a request shows. */
export function credentials() {
  return token === '' ? {} : { authorization: `Bearer ${token}` };
}

/** Fetches with the token; where it is refused the reader is asked for one. Rejects what is not answered well. */
export async function ask(path) {
  const answer = await fetch(path, { headers: credentials() });
  if (answer.ok) {
    at('tokenForm').hidden = true;
    return answer;
  }
  if (answer.status === 401 || answer.status === 403) {
    const { code, message } = await answer.json();
    sayOrHide('tokenWhy', token === '' ? '' : `It was refused: ${message} (${code}).`);
    at('tokenForm').hidden = false;
  }
  throw new Error(`it answered ${answer.status}`);
}

/** Resolves after a time, or as soon as there is another token to try. */
export async function pause(ms) {
  await new Promise((resolve) => {
    wake = resolve;
    setTimeout(resolve, ms);
  });
}

takeFromAddress();
addEventListener('hashchange', () => {
  if (takeFromAddress()) wake();
});
at('tokenForm').addEventListener('submit', (event) => {
  event.preventDefault();
  keep(at('token').value);
  at('token').value = '';
  wake();
});
