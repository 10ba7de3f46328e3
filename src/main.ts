/** The composition root: `tweed COMMAND …`. A command's file, and what it needs, is loaded when it runs. */

import { VERSION } from './version.ts'

interface CommandEntry {
  readonly summary: string
  /** Sets process.exitCode. */
  readonly run: (argv: readonly string[]) => Promise<void>
}

const COMMANDS: Readonly<Record<string, CommandEntry>> = {
  agent: {
    summary: 'lease a subnet for this host and keep its kernel in sync with all leases',
    run: async (argv) => {
      process.exitCode = await (await import('./cli/agent.ts')).runAgent([...argv])
    },
  },
  status: {
    summary: 'what the agent of this host has leased, its peers, what is in sync',
    run: async (argv) => (await import('./cli/status.ts')).runStatus(argv),
  },
  config: {
    summary: 'get, put or check the network config in the registry',
    run: async (argv) => (await import('./cli/config.ts')).runConfig(argv),
  },
  leases: {
    summary: 'list the leases, reserve a subnet for a host, release one',
    run: async (argv) => (await import('./cli/leases.ts')).runLeases(argv),
  },
  'docker-opts': {
    summary: "dockerd's options for our subnet, as a file for systemd",
    run: async (argv) => (await import('./cli/docker-opts.ts')).runDockerOpts(argv),
  },
  lab: {
    summary: 'hosts and containers on this machine, in network namespaces',
    run: async (argv) => (await import('./cli/lab.ts')).runLab(argv),
  },
  demo: {
    summary: 'the overlay explained by a machine that builds, breaks and repairs it',
    run: async (argv) => (await import('./cli/demo.ts')).runDemo(argv),
  },
}

function usage(): string {
  const lines = Object.entries(COMMANDS).map(([name, { summary }]) => `  ${name.padEnd(12)} ${summary}`)
  return `Usage: tweed COMMAND [OPTIONS]

${lines.join('\n')}

\`tweed COMMAND --help\` says more; \`tweed --version\` says which tweed this is.
`
}

async function main([name = '', ...argv]: readonly string[]): Promise<void> {
  if (Object.hasOwn(COMMANDS, name)) {
    await COMMANDS[name]?.run(argv)
  } else if (name === '--version' || name === '-V') {
    process.stdout.write(`${VERSION}\n`)
  } else if (name === '--help' || name === '-h' || name === 'help') {
    process.stdout.write(usage())
  } else {
    process.stderr.write(
      name === '' ? usage() : `tweed: there is no command ${JSON.stringify(name)}\n\n${usage()}`,
    )
    process.exitCode = 2
  }
}

// Not awaited, because the bundle is CommonJS.
void main(process.argv.slice(2))
