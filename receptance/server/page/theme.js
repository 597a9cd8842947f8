/**
 * Light or dark, as it was chosen last; without a choice, as the system has it.  A small script of its own, loaded
 * before the page is drawn, so that a dark page never flashes white.
 */

try {
  const chosen = localStorage.getItem("receptance.theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Without storage there is no choice to remember.
}
