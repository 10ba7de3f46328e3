/** `tweed agent`: the agent's life as a process. */

import { mkdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import { runAgent as run } from '../agent/agent.ts'
import { FlagError } from '../config/flags.ts'
import { type LeaseRegistry, type RegistryCall, RegistryError } from '../lease/registry.ts'
import { createLogger, type Logger } from '../log.ts'
import { statusSocketPath } from '../status/client.ts'
import { serve } from '../status/http.ts'
import { Journal } from '../status/journal.ts'
import { notifySystemd } from '../status/systemd.ts'
import { RegistryCalls } from '../status/tally.ts'
import { trimMemory } from '../native.ts'
import { compactHeap, stopOptimizing } from '../v8.ts'
import { VERSION } from '../version.ts'
import { formatHelp, type Question, readSettings, type Settings } from './agent-settings.ts'
import { openRegistry } from './open-registry.ts'

/** Milliseconds from being ready until the start is over for V8 too. */
const SETTLING = 2000
/** Milliseconds after that, when V8 has freed what it collected, on threads of its own and in its own time. */
const FREEING = 10_000

/** Exit status: 0 after SIGTERM or SIGINT, 1 on what an operator must mend, 2 for a wrong command line. */
export async function runAgent(argv: readonly string[]): Promise<number> {
  const calls = new RegistryCalls()
  const stop = new AbortController()
  let settings: Settings | Question
  let registry: LeaseRegistry
  try {
    settings = readSettings(argv, process.env)
    if (settings === 'help' || settings === 'version') {
      process.stderr.write(settings === 'help' ? formatHelp() : `${VERSION}\n`)
      return 0
    }
    const { renewMargin, setNetworkUnavailable } = settings
    const observe = (call: RegistryCall): void => calls.add(call)
    registry = await openRegistry(settings.registry, { renewMargin, setNetworkUnavailable, observe })
    registry.prepare?.(stop.signal)
  } catch (error) {
    if (!(error instanceof FlagError || error instanceof RegistryError)) throw error
    process.stderr.write(`tweed agent: ${error.message}\n`)
    return 2
  }
  const log = await createLogger(process.stderr.isTTY, settings.verbose)
  try {
    await runUntilSignal(settings, registry, calls, log, stop)
    return 0
  } catch (error) {
    log.fatal({ err: error }, error instanceof Error ? error.message : String(error))
    return 1
  }
}

async function runUntilSignal(
  settings: Settings,
  registry: LeaseRegistry,
  calls: RegistryCalls,
  log: Logger,
  stop: AbortController,
): Promise<void> {
  const { agent, healthz } = settings
  const { subnetFile } = agent
  for (const name of ['SIGTERM', 'SIGINT'] as const) {
    process.once(name, () => {
      log.info(`${name}: stopping; the data plane stays in place`)
      stop.abort()
    })
  }
  const { NOTIFY_SOCKET } = process.env
  const journal = new Journal(log, VERSION, registry.name, ({ scope }) => {
    notifySystemd(NOTIFY_SOCKET, 'READY=1')
    setTimeout(() => {
      if (scope.onDemand.size > 0) stopOptimizing()
      compactHeap()
      setTimeout(trimMemory, FREEING).unref()
    }, SETTLING).unref()
  })
  await mkdir(dirname(subnetFile), { recursive: true, mode: 0o755 })
  const served = { journal, calls }
  const servers = [await serve(served, { kind: 'socket', path: statusSocketPath(subnetFile) })]
  try {
    if (healthz !== undefined) servers.push(await serve(served, { kind: 'port', ...healthz }))
    log.info({ version: VERSION, registry: registry.name }, 'tweed agent starts')
    await run({ ...agent, registry }, journal, stop.signal)
  } finally {
    notifySystemd(NOTIFY_SOCKET, 'STOPPING=1')
    for (const server of servers) server.close().closeAllConnections()
    await registry.close()
  }
}
