"use strict";

/*
 * Light or dark: the system's wish, until somebody chooses otherwise here. A plain script at the head of the page, so
 * that the first thing drawn has the right colours.
 */
(() => {
  const KEY = "maskcast.theme";
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try {
    chosen = localStorage.getItem(KEY);
  } catch {
    // A browser that keeps nothing: the choice lasts as long as the page.
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
    // What the system wishes anyway is no choice: the page follows the system again.
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
