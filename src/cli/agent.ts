/** `tweed agent`: the agent's life as a process. */

import { mkdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import { runAgent as run } from '../agent/agent.ts'
import { FlagError } from '../config/flags.ts'
import { RegistryError } from '../lease/registry.ts'
import { createLogger, type Logger } from '../log.ts'
import { statusSocketPath } from '../status/client.ts'
import { serve } from '../status/http.ts'
import { Journal } from '../status/journal.ts'
import { VERSION } from '../version.ts'
import { readSettings, type Settings } from './agent-settings.ts'

/** Exit status: 0 after SIGTERM or SIGINT, 1 on what an operator must mend, 2 for a wrong command line. */
export async function runAgent(argv: readonly string[]): Promise<number> {
  let settings: Settings | undefined
  try {
    settings = readSettings(argv)
  } catch (error) {
    if (!(error instanceof FlagError || error instanceof RegistryError)) throw error
    process.stderr.write(`tweed agent: ${error.message}\n`)
    return 2
  }
  if (settings === undefined) return 0
  const log = createLogger(process.stderr.isTTY)
  try {
    await runUntilSignal(settings, log)
    return 0
  } catch (error) {
    log.fatal({ err: error }, error instanceof Error ? error.message : String(error))
    return 1
  }
}

async function runUntilSignal(settings: Settings, log: Logger): Promise<void> {
  const { registry, subnetFile, healthz } = settings
  const stop = new AbortController()
  for (const name of ['SIGTERM', 'SIGINT'] as const) {
    process.once(name, () => {
      log.info(`${name}: stopping; the data plane stays in place`)
      stop.abort()
    })
  }
  const journal = new Journal(log, VERSION, registry.name)
  await mkdir(dirname(subnetFile), { recursive: true, mode: 0o755 })
  const servers = [await serve(journal, { kind: 'socket', path: statusSocketPath(subnetFile) })]
  try {
    if (healthz !== undefined) servers.push(await serve(journal, { kind: 'port', ...healthz }))
    log.info({ version: VERSION, registry: registry.name }, 'tweed agent starts')
    await run(settings, journal, stop.signal)
  } finally {
    for (const server of servers) server.close().closeAllConnections()
    await registry.close()
  }
}
