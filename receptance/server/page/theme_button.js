/** The button that goes through the themes: the system's, light, dark.  `theme.js` reads what is chosen here. */

const KEY = "receptance.theme";
const NEXT = { system: "light", light: "dark", dark: "system" };
const SYMBOLS = { system: "system", light: "sun", dark: "moon" };

export function themeButton(button, storage) {
  const root = document.documentElement;
  const show = () => {
    const theme = root.dataset.theme ?? "system";
    button.setAttribute("aria-label", `Theme: ${theme}`);
    button.title = `Theme: ${theme}`;
    button.querySelector("use").setAttribute("href", `#i-${SYMBOLS[theme]}`);
  };
  button.addEventListener("click", () => {
    const theme = NEXT[root.dataset.theme ?? "system"];
    if (theme === "system") delete root.dataset.theme;
    else root.dataset.theme = theme;
    keep(storage, theme);
    show();
  });
  show();
}

function keep(storage, theme) {
  try {
    storage?.setItem(KEY, theme);
  } catch {
    // Full: the theme then lasts as long as the page.
  }
}
