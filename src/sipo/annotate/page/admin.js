// The researcher's page: progress, flags and the switch. Texts are set as text, whatever they hold.
const $ = (id) => document.getElementById(id);
const seconds = (value) => (value === null ? "–" : value.toFixed(1));

function row(...cells) {
  const line = document.createElement("tr");
  for (const [value, kind] of cells.map((cell) => (Array.isArray(cell) ? cell : [cell, ""]))) {
    const cell = document.createElement("td");
    cell.className = kind;
    value instanceof Node ? cell.append(value) : (cell.textContent = value);
    line.append(cell);
  }
  return line;
}
function bar(done, all, name) { return Object.assign(document.createElement("progress"), { max: all || 1, value: done, ariaLabel: name }); }

function show(found) {
  $("title").textContent = found.title || "Progress";
  $("state").textContent = found.state;
  for (const it of document.querySelectorAll("[data-state]")) it.disabled = it.dataset.state === found.state;
  $("groups").replaceChildren(...found.groups.map((g) => row(g.group, bar(g.answered, g.total, `group ${g.group}`), [`${g.answered} of ${g.total}`, "n"])));
  $("people").replaceChildren(...found.people.map((p) => row([p.name, p.discarded ? "gone" : ""], bar(p.answered, p.total, p.name), [`${p.answered} of ${p.total}`, "n"],
    [seconds(p.seconds), "n"], [p.undone, "n"], [p.last ? new Date(1000 * p.last).toLocaleString([], { dateStyle: "short", timeStyle: "short" }) : "–", "time"], [p.flags.map((f) => f.evidence).join("; ") || "–", p.flags.length ? "flag" : ""])));
  $("items").replaceChildren(...found.items.map((i) => row(i.item, i.prompt, [i.votes, "n"], [seconds(i.seconds), "n"])));
}
async function ask(path, body) {
  const request = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(path, request).catch(() => null);
  if (answer?.ok) show(await answer.json());
}
for (const it of document.querySelectorAll("[data-state]")) it.onclick = () => ask("state", { state: it.dataset.state });
setInterval(() => ask("progress"), 5000);
await ask("progress");
