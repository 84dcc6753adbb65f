// JupyterLab's launcher and command palette get a link to the gateway's status page.
// A module-federation container written by hand, as it needs nothing but two tokens of
// JupyterLab's own: `init` is given what JupyterLab shares, `get` makes the extension of it.
"use strict";
(() => {
  const COMMAND = "llmkernel:status";
  let shared;

  async function tokens(name) {
    const versions = shared[name];
    if (!versions) return {};
    const newest = Object.keys(versions).sort().pop();
    return (await versions[newest].get())();
  }

  function plugin(ILauncher, ICommandPalette) {
    return {
      id: "llmkernel:launcher",
      description: "A link to llmkernel's status page.",
      autoStart: true,
      optional: [ILauncher, ICommandPalette].filter(Boolean),
      activate: (app, launcher, palette) => {
        app.commands.addCommand(COMMAND, {
          label: "Language models",
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
      return () => ({ __esModule: true, default: plugin(ILauncher, ICommandPalette) });
    },
  };
})();
