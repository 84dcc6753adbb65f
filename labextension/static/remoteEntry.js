// JupyterLab's launcher and command palette get a link to the gateway's status page.
// A module-federation container written by hand, as it needs little of JupyterLab's own: `init` is given what JupyterLab shares, `get` makes the extension of it.
"use strict";
(() => {
  const COMMAND = "llmkernel:status";
  // a stack of three layers, in the colours that JupyterLab gives its own icons
  const ICON = `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
    <g class="jp-icon3" fill="#616161"><path d="M12 3 2.5 7.8 12 12.6l9.5-4.8z"/>
    <path d="m4.9 11.2-2.4 1.2 9.5 4.8 9.5-4.8-2.4-1.2-7.1 3.6z"/>
    <path d="m4.9 15.8-2.4 1.2 9.5 4.8 9.5-4.8-2.4-1.2-7.1 3.6z"/></g></svg>`;
  let shared;

  async function tokens(name) {
    const versions = shared[name];
    if (!versions) return {};
    const newest = Object.keys(versions).sort().pop();
    return (await versions[newest].get())();
  }

  function plugin(ILauncher, ICommandPalette, LabIcon) {
    return {
      id: "llmkernel:launcher",
      description: "A link to llmkernel's status page.",
      autoStart: true,
      optional: [ILauncher, ICommandPalette].filter(Boolean),
      activate: (app, launcher, palette) => {
        app.commands.addCommand(COMMAND, {
          label: "Language models",
          icon: LabIcon && new LabIcon({ name: "llmkernel:layers", svgstr: ICON }),
          caption: "What llmkernel's workers hold and do, in a new tab",
          execute: () => {
            window.open(`${app.serviceManager.serverSettings.baseUrl}llmkernel/`, "_blank", "noopener");
          },
        });
        if (launcher) launcher.add({ command: COMMAND, category: "Other", rank: 20 });
        if (palette) palette.addItem({ command: COMMAND, category: "Other" });
      },
    };
  }

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB.llmkernel = {
    init: (scope) => { shared = scope; },
    get: async () => {
      const { ILauncher } = await tokens("@jupyterlab/launcher");
      const { ICommandPalette } = await tokens("@jupyterlab/apputils");
      const { LabIcon } = await tokens("@jupyterlab/ui-components");
      const made = plugin(ILauncher, ICommandPalette, LabIcon);
      return () => ({ __esModule: true, default: made });
    },
  };
})();
