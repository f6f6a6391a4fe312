"use strict";

/*
 * Light or dark theme: the system's setting, unless the user has selected the other one. This is a classic script in the
 * page's head, so that the page is drawn in the right colours from the start.
 */
(() => {
  const KEY = "maskcast.theme";
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try {
    chosen = localStorage.getItem(KEY);
  } catch {
    // No storage: the selection lasts until the page is closed.
  }

  const isDark = () => (chosen === null ? system.matches : chosen === "dark");

  function apply() {
    document.documentElement.dataset.theme = isDark() ? "dark" : "light";
    const button = document.getElementById("theme");
    if (!button) return;
    button.setAttribute("aria-pressed", String(isDark()));
    button.querySelector("use").setAttribute("href", isDark() ? "#i-sun" : "#i-moon");
  }

  function toggle() {
    const dark = !isDark();
    // A selection equal to the system's setting is deleted: the page follows the system again.
    chosen = dark === system.matches ? null : dark ? "dark" : "light";
    try {
      if (chosen === null) localStorage.removeItem(KEY);
      else localStorage.setItem(KEY, chosen);
    } catch {
      // As above.
    }
    apply();
  }

  apply();
  system.addEventListener("change", apply);
  document.addEventListener("DOMContentLoaded", () => {
    apply();
    document.getElementById("theme").addEventListener("click", toggle);
  });
})();
