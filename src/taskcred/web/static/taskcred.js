// What the pages do when JavaScript is there. Everything works without it.
"use strict";

// A part of a page that renews itself: polls its address with an ETag until the server says it is final.
function keepLive(part) {
  const every = Number(part.dataset.every || 2000);
  let etag = null;
  async function look() {
    if (document.visibilityState === "visible") {
      try {
        const answer = await fetch(part.dataset.live, {
          headers: etag ? { "If-None-Match": etag } : {},
          credentials: "same-origin",
          redirect: "error",
        });
        if (answer.status === 200) {
          etag = answer.headers.get("ETag");
          renew(part, await answer.text());
        } else if (answer.status >= 400 && answer.status < 500) {
          return; // signed out, or gone: a reload says more
        }
      } catch {
        // The server is away for a moment; the next look may find it.
      }
      if (part.querySelector("[data-final]")) {
        finish();
        return;
      }
    }
    window.setTimeout(look, every);
  }
  window.setTimeout(look, every);
}

function renew(part, html) {
  const before = part.querySelector("[data-state]")?.dataset.state;
  const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
  const parsed = new DOMParser().parseFromString(html, "text/html");
  part.replaceChildren(...parsed.body.childNodes);
  if (focused) document.getElementById(focused)?.focus();
  const after = part.querySelector("[data-state]")?.dataset.state;
  const voice = document.getElementById("announce");
  if (voice && after !== before) voice.textContent = after;
}

function finish() {
  for (const element of document.querySelectorAll("[data-while-live]")) {
    if (element.contains(document.activeElement)) document.querySelector("main").focus();
    element.hidden = true;
  }
}

// A run's output grows at its end; the view follows it unless the reader has scrolled up.
function followOutput(box) {
  let after = Number(box.dataset.after);
  let last = false;
  async function look() {
    if (document.visibilityState === "visible") {
      try {
        const answer = await fetch(`${box.dataset.output}?after=${after}`, { credentials: "same-origin", redirect: "error" });
        if (!answer.ok) return;
        const part = await answer.json();
        if (part.text) {
          const atEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 8;
          box.append(part.text);
          if (atEnd) box.scrollTop = box.scrollHeight;
        }
        const more = part.next_after !== after;
        after = part.next_after;
        if (part.truncated) document.querySelector("[data-truncated]").hidden = false;
        if (last && !more) return;
        last = part.finished;
      } catch {
        // As above.
      }
    }
    window.setTimeout(look, 1000);
  }
  look();
}

// A form is sent once: a second press while the first is under way does nothing.
function sendOnce(form) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) {
      event.preventDefault();
      return;
    }
    form.dataset.sent = "yes";
    const button = event.submitter;
    if (button && !["preview", "schedule"].includes(button.value)) {
      button.setAttribute("aria-disabled", "true");
      button.textContent = form.dataset.once;
    }
  });
}

function copyFrom(button) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copy);
    const voice = document.getElementById("copied");
    try {
      await navigator.clipboard.writeText(source.value);
      voice.textContent = "Copied.";
    } catch {
      source.focus();
      source.select();
      voice.textContent = "The key is selected: copy it with your keyboard.";
    }
  });
}

// At once, what the server would say about a pasted key's form; whether it works only the server can tell.
function checkKey(input) {
  const voice = document.getElementById(`${input.id}-check`);
  input.addEventListener("input", () => {
    const text = input.value.trim();
    if (!text) voice.textContent = "";
    else if (/\s/.test(text)) voice.textContent = "There is a space inside. Copy only the key.";
    else if (text.startsWith("tcs_")) voice.textContent = "This is a run's stand-in key, not an API key of yours.";
    else voice.textContent = `${text.length} characters, ending in ${text.length >= 16 ? text.slice(-4) : "…"}.`;
  });
}

function previewTimes(cron) {
  const zone = document.getElementById("timezone");
  const shown = document.getElementById("preview");
  let timer = 0;
  async function show() {
    const query = new URLSearchParams({ cron: cron.value, timezone: zone.value });
    const answer = await fetch(`${cron.dataset.preview}?${query}`, { credentials: "same-origin", redirect: "error" });
    if (answer.ok) {
      const parsed = new DOMParser().parseFromString(await answer.text(), "text/html");
      shown.replaceChildren(...parsed.body.childNodes);
    }
  }
  const later = () => {
    window.clearTimeout(timer);
    timer = window.setTimeout(() => show().catch(() => {}), 400);
  };
  cron.addEventListener("input", later);
  zone.addEventListener("input", later);
  if (zone.hasAttribute("data-own-zone") && zone.value === "UTC") {
    zone.value = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
    later();
  }
}

// Coming back with the browser's Back button must not find a form that thinks it was sent.
window.addEventListener("pageshow", (event) => {
  if (event.persisted) window.location.reload();
});
document.querySelectorAll("[data-live]").forEach(keepLive);
document.querySelectorAll("[data-output]").forEach(followOutput);
document.querySelectorAll("form[data-once]").forEach(sendOnce);
document.querySelectorAll("[data-copy]").forEach(copyFrom);
document.querySelectorAll("[data-check]").forEach(checkKey);
document.querySelectorAll("[data-preview]").forEach(previewTimes);
