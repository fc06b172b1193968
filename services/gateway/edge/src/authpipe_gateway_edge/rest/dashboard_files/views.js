// What is shown: the log, the incidents, the members.
import { ask, attempt, el } from "/dashboard/app.js";

const TRAILS = ["user-credentials", "client-secrets", "control"];
const ROLES = ["auditor", "developer", "admin", "owner"];
const DETAILS = ["event_id", "request_id", "grant_id", "trace_id", "emitter", "sequence", "purpose", "record_class",
  "record_version", "records", "digest", "provider", "trail", "leaf_index"];

function when(time) {
  return el("time", { dateTime: time, title: time }, time.slice(0, 19).replace("T", " "));
}

function code(text) {
  return text ? el("code", {}, text) : "";
}

function table(caption, titles) {
  const body = el("tbody");
  const head = el("thead", {}, el("tr", {}, ...titles.map((title) => el("th", { scope: "col" }, title))));
  return [el("table", { "aria-label": caption }, head, body), body];
}

function row(body, ...cells) {
  body.append(el("tr", {}, ...cells.map((cell) => el("td", {}, cell))));
}

function choice(name, values, chosen) {
  return el("select", { name }, ...values.map(([value, title]) => el("option", { value, selected: value === chosen }, title)));
}

function details(event) {
  const list = el("dl");
  const shown = { ...event, records: event.records.map((each) => `${each.record_class} ${each.record_version}`).join(", ") };
  for (const name of DETAILS) {
    if (shown[name] !== "" && shown[name] !== 0) list.append(el("dt", {}, name), el("dd", {}, String(shown[name])));
  }
  return el("details", {}, el("summary", {}, code(event.event)), list);
}

/** Shows the log as of the checkpoint that was newest when the first page was asked for. */
export async function log(main) {
  const filter = el("form", { role: "search" },
    el("label", {}, "Event", el("input", { name: "event", placeholder: "TOKEN_REFRESHED", maxLength: 80 })),
    el("label", {}, "Any id", el("input", { name: "id", placeholder: "con_…, req_…, key_…", maxLength: 96 })),
    el("label", {}, "Outcome", choice("outcome", [["", "any"], ["succeeded", "succeeded"], ["failed", "failed"], ["refused", "refused"]])),
    el("label", {}, "Since", el("input", { name: "since", type: "datetime-local" })),
    el("label", {}, "Until", el("input", { name: "until", type: "datetime-local" })),
    el("button", { className: "main" }, "Show"),
  );
  const [shown, body] = table("Audit events", ["Time (UTC)", "Event", "Who", "On what", "Outcome", "From"]);
  const older = el("button", { type: "button" }, "Older");
  const size = el("span");
  const trail = choice("trail", TRAILS.map((name) => [name, name]), TRAILS[0]);
  const proofs = el("a", { download: "" }, "with proofs");
  const ocsf = el("a", { download: "" }, "as OCSF");
  const aim = () => {
    proofs.href = `/v1/audit/export?trail=${trail.value}`;
    ocsf.href = `/v1/audit/export?trail=${trail.value}&format=ocsf`;
    proofs.download = `${trail.value}.jsonl`;
    ocsf.download = `${trail.value}.ocsf.jsonl`;
  };
  trail.addEventListener("change", aim);
  aim();
  let token = "";
  async function page() {
    const query = new URLSearchParams({ page_size: "50", page_token: token });
    for (const [name, value] of new FormData(filter)) {
      if (value) query.set(name, name === "since" || name === "until" ? `${value}Z` : value.trim());
    }
    const found = await ask("GET", `/v1/audit/events?${query}`);
    for (const event of found.events) {
      const outcome = el("span", { className: event.outcome }, event.reason ? `${event.outcome}: ${event.reason}` : event.outcome);
      row(body, when(event.time), details(event), code(event.actor), code(event.target), outcome, code(event.source_address));
    }
    token = found.next_page_token;
    older.disabled = !token;
    const sizes = Object.entries(found.tree_sizes).map(([name, count]) => `${name} ${count}`);
    size.textContent = sizes.length ? `As of the trees ${sizes.join(", ")}.` : "";
    if (!body.children.length) row(body, "Nothing fits.", "", "", "", "", "");
  }
  filter.addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    token = "";
    body.replaceChildren();
    attempt(main, page);
  });
  older.addEventListener("click", () => attempt(main, page));
  main.append(el("h1", {}, "Log"), 
    el("p", {}, "Every use of a credential, and every change. Nobody can alter it unnoticed, nor can we: verify an export with ", code("authpipe audit verify"), "."),
    filter, shown, el("div", { className: "foot" }, older, size, el("span", {}, "Export ", trail, " ", proofs, " ", ocsf)));
  await page();
}

/** Shows what was found alarming. */
export async function incidents(main) {
  const [shown, body] = table("Incidents", ["Found (UTC)", "What", "Severity", "Of whom", "State", "Tell the customer by"]);
  main.append(el("h1", {}, "Incidents"), el("p", {}, "What was found alarming in the log, newest first. The evidence with its proofs is at /v1/incidents."), shown);
  const found = await ask("GET", "/v1/incidents?page_size=200");
  for (const each of found.incidents) {
    row(body, when(each.open_time), code(each.detector), each.severity, code(each.subject), each.state, each.notify_by ? when(each.notify_by) : "");
  }
  if (!found.incidents.length) row(body, "Nothing was found.", "", "", "", "", "");
}

/** Takes access away, each act in its own words and after a question; what it would do is said before. */
export async function acts(main, me) {
  main.append(el("h1", {}, "Take access away"), el("p", {}, "For the day on which something is stolen, and for a person who asks to be forgotten. Each act is in the log, and the owners are told."));
  if (!me || !["admin", "owner"].includes(me.role)) {
    main.append(el("p", {}, "Your role does not allow any of it. Ask an admin or an owner."));
    return;
  }
  const said = el("output", { hidden: true });
  const say = (text) => { said.hidden = false; said.textContent = text; };
  const act = (label, explained, work) => {
    const button = el("button", { type: "button" }, label);
    button.addEventListener("click", async () => {
      button.disabled = true;
      await attempt(main, work);
      button.disabled = false;
    });
    main.append(el("h2", {}, label), el("p", {}, explained), button);
  };
  const endUser = el("input", { name: "end_user", maxLength: 200, "aria-label": "End user" });
  main.append(said);
  act("Rotate every token", "Each is refreshed at its Provider once. What only its owner can replace, such as an API key of a Provider, is counted.", async () => {
    const would = await ask("POST", "/v1/rotations", { dry_run: true });
    if (!confirm(`${would.total_count} tokens are rotated; ${would.irreplaceable_count} credentials only their owners can replace.`)) return;
    const begun = await ask("POST", "/v1/rotations", {});
    say(`Rotation ${begun.id} of ${begun.total_count} tokens has begun.`);
  });
  act("Revoke all API keys", "Nothing is served to any program of yours until there are new ones, which an operator makes.", async () => {
    const would = await ask("POST", "/v1/api-keys:revoke-all", { dry_run: true });
    if (!confirm(`${would.revoked_count} API keys are revoked, for good.`)) return;
    say(`${(await ask("POST", "/v1/api-keys:revoke-all", {})).revoked_count} API keys are revoked.`);
  });
  act("Freeze the workspace", "Nothing is served or changed, and nothing is lost. Only whoever runs Authpipe undoes it.", async () => {
    if (!confirm("Freeze the workspace?")) return;
    say((await ask("POST", "/v1/workspace:freeze", {})).was_frozen ? "It was frozen already." : "It is frozen.");
  });
  act("Erase an end user", "Every connection of theirs is disconnected and deleted, and the key of their pseudonym in the log, for good.", async () => {
    const id = endUser.value.trim();
    if (!id) throw new Error("Say who: the id of the end user, as your application names them.");
    if (!confirm(`Erase everything of ${id}, for good?`)) return;
    say(`${(await ask("DELETE", `/v1/end-users/${encodeURIComponent(id)}`)).disconnected_count} connections of ${id} are being erased.`);
  });
  main.lastChild.before(endUser, " ");
}

/** Shows who is a member, and lets those whose role allows it change that. */
export async function members(main, me) {
  const mayChange = me && ["admin", "owner"].includes(me.role);
  const roles = ROLES.slice(0, ROLES.indexOf(me?.role ?? "") + 1);
  const [shown, body] = table("Members", ["E-mail", "Role", "State", ""]);
  main.append(el("h1", {}, "Members"), el("p", {}, "Who may sign in to this dashboard. No role can see a credential."));
  if (mayChange) {
    const form = el("form", {},
      el("label", {}, "E-mail", el("input", { name: "email", type: "email", required: true, maxLength: 320 })),
      el("label", {}, "Role", choice("role", roles.map((role) => [role, role]), "auditor")),
      el("button", { className: "main" }, "Invite"),
    );
    const invitation = el("output", { hidden: true });
    form.addEventListener("submit", (submitted) => {
      submitted.preventDefault();
      attempt(main, async () => {
        const made = await ask("POST", "/v1/members", Object.fromEntries(new FormData(form)));
        invitation.hidden = false;
        invitation.replaceChildren("Send this address to them by a way that only they read. It is shown this once, and is good for three days: ", code(made.url));
        form.reset();
        await list();
      });
    });
    main.append(form, invitation);
  }
  main.append(shown);
  async function list() {
    const found = await ask("GET", "/v1/members");
    body.replaceChildren();
    for (const member of found.members) {
      const isBelow = mayChange && member.id !== found.own_id && roles.includes(member.role);
      row(body, member.email, isBelow ? role(member) : member.role, member.state, isBelow ? remove(member) : "");
    }
  }
  function role(member) {
    const select = choice("role", roles.map((each) => [each, each]), member.role);
    select.setAttribute("aria-label", `Role of ${member.email}`);
    select.addEventListener("change", () => attempt(main, async () => {
      await ask("PATCH", `/v1/members/${member.id}`, { role: select.value }).finally(list);
    }));
    return select;
  }
  function remove(member) {
    const button = el("button", { type: "button", "aria-label": `Remove ${member.email}` }, "Remove");
    button.addEventListener("click", () => attempt(main, async () => {
      if (!confirm(`Remove ${member.email}? Their sessions end at once.`)) return;
      await ask("DELETE", `/v1/members/${member.id}`);
      await list();
    }));
    return button;
  }
  await list();
}
