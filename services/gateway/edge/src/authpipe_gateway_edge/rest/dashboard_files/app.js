// Signing in and out, and which view is shown. What is shown comes from the same API that customers' programs use; text is
// only ever set as text, so that nothing of it can become markup (the page's policy refuses it besides).
import { acts, incidents, log, members } from "/dashboard/views.js";

const VIEWS = { log: ["Log", log], incidents: ["Incidents", incidents], members: ["Members", members], acts: ["Take access away", acts] };
const main = document.querySelector("main");
const header = document.querySelector("header");

/** Makes an element with properties and children. */
export function el(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** Asks our own API; throws the problem document when it refuses (RFC 9457). */
export async function ask(method, path, body) {
  const headers = body === undefined ? {} : { "content-type": "application/json" };
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  if (answer.ok) return answer.status === 204 ? null : answer.json();
  const problem = await answer.json().catch(() => ({ reason: "UNREACHABLE", detail: "Nothing answered as it should." }));
  throw Object.assign(new Error(problem.detail), problem);
}

/** Runs what a button or form does, and shows what went wrong beside it. */
export async function attempt(place, work) {
  place.querySelector(":scope > .error")?.remove();
  try {
    return await work();
  } catch (error) {
    if (error.reason === "SESSION_INVALID") return signedOut();
    const cancelled = error.name === "NotAllowedError";
    const said = cancelled ? "No passkey was used. Try again when you are ready." : error.message;
    place.append(el("p", { className: "error", role: "alert" }, said));
    return undefined;
  }
}

function alone(title, text, label, work) {
  header.hidden = true;
  main.className = "narrow";
  const button = el("button", { className: "main", type: "button" }, label);
  button.addEventListener("click", async () => {
    button.disabled = true;
    await attempt(main, work);
    button.disabled = false;
  });
  main.replaceChildren(el("h1", {}, title), el("p", {}, text), button);
}

function signedOut() {
  history.replaceState(null, "", "/dashboard");
  alone("Sign in", "Use the passkey that you made when you joined.", "Sign in with a passkey", async () => {
    const options = await ask("POST", "/dashboard/sign-in:begin");
    const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options);
    const credential = await navigator.credentials.get({ publicKey });
    await ask("POST", "/dashboard/sign-in:finish", { credential: credential.toJSON() });
    await signedIn();
  });
}

function joining(invitation) {
  alone("Join the workspace", "Make a passkey on this device. There is no password.", "Make a passkey", async () => {
    const options = await ask("POST", "/dashboard/joining:begin", { invitation });
    const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(options);
    const credential = await navigator.credentials.create({ publicKey });
    await ask("POST", "/dashboard/joining:finish", { invitation, credential: credential.toJSON() });
    history.replaceState(null, "", "/dashboard");
    await signedIn();
  });
}

async function signedIn() {
  let found;
  try {
    found = await ask("GET", "/v1/members");
  } catch (error) {
    if (error.reason === "SESSION_INVALID" || error.reason === "API_KEY_MISSING") return signedOut();
    main.replaceChildren(el("p", { className: "error", role: "alert" }, error.message));
    return undefined;
  }
  const me = found.members.find((member) => member.id === found.own_id);
  document.querySelector("#workspace").textContent = found.workspace;
  document.querySelector("#who").textContent = me ? `${me.email}, ${me.role}` : "";
  header.hidden = false;
  main.className = "";
  return show(me);
}

let shownTo;
function show(me = shownTo) {
  shownTo = me;
  const wanted = location.hash.slice(1) in VIEWS ? location.hash.slice(1) : "log";
  const links = Object.entries(VIEWS).map(([name, [title]]) =>
    el("a", name === wanted ? { href: `#${name}`, "aria-current": "page" } : { href: `#${name}` }, title),
  );
  document.querySelector("nav").replaceChildren(...links);
  main.replaceChildren();
  return attempt(main, () => VIEWS[wanted][1](main, me));
}

document.querySelector("#sign-out").addEventListener("click", async () => {
  await ask("POST", "/dashboard/sign-out");
  signedOut();
});
window.addEventListener("hashchange", () => header.hidden || show());

if (location.pathname === "/dashboard/join") {
  // The invitation leaves the address bar, and with it the history, at once.
  const invitation = location.hash.slice(1);
  history.replaceState(null, "", "/dashboard/join");
  joining(invitation);
} else {
  await signedIn();
}
