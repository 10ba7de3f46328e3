/** Asks a running agent what it knows: `GET /status` on its unix socket. */

import { get } from 'node:http'
import { text } from 'node:stream/consumers'
import type { Status } from './status.ts'

/** No agent answers on that socket. The message says which and why. */
export class AgentUnreachable extends Error {
  override readonly name = 'AgentUnreachable'
}

/** The socket stands beside the agent's subnet file: `/run/flannel/subnet.sock` for `/run/flannel/subnet.env`. */
export function statusSocketPath(subnetFile: string): string {
  return subnetFile.replace(/(?:\.env)?$/, '.sock')
}

const TIMEOUT = 5000

/** @throws {AgentUnreachable} */
export async function readStatus(socketPath: string): Promise<Status> {
  try {
    return JSON.parse(await getText(socketPath, '/status')) as Status
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException
    const reason = code === 'ENOENT' || code === 'ECONNREFUSED' ? 'it does not run' : message
    throw new AgentUnreachable(`no agent answers on ${socketPath}: ${reason}`, { cause: error })
  }
}

function getText(socketPath: string, path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(TIMEOUT)
    get({ socketPath, path, signal, agent: false }, (response) => {
      if (response.statusCode === 200) resolve(text(response))
      else reject(new Error(`it answered ${response.statusCode}`))
    }).once('error', reject)
  })
}
