/** One process at a time builds or removes a lab. */

import { once } from 'node:events'
import { createServer } from 'node:net'
import { LabError } from './topology.ts'

/**
 * An abstract unix socket (unix(7)): the kernel lets go of it when its process ends, however it ends, so that no
 * stale lock is ever left. @throws {LabError} when another process holds it.
 */
export async function lockLab(name: string): Promise<{ release(): void }> {
  const server = createServer()
  try {
    await once(server.listen(`\0tweed-lab-${name}`), 'listening')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error
    throw new LabError(`another process is at work on lab ${name}`)
  }
  server.unref()
  return { release: () => void server.close() }
}
