/**
 * What the agent serves over HTTP, on `--healthz-port` and on a unix socket beside the subnet file: flannel's `/healthz`
 * and `/readyz`, and our `/status` and `/metrics`.
 */

import { rm } from 'node:fs/promises'
import { createServer, type RequestListener, type Server } from 'node:http'
import { connect } from 'node:net'
import type { Journal } from './journal.ts'
import type { Exposition } from './metrics.ts'
import type { RegistryCalls } from './tally.ts'

/** Something else has the address. */
export class ListenError extends Error {
  override readonly name = 'ListenError'
}

export type ListenAddress =
  | { readonly kind: 'port'; readonly host: string; readonly port: number }
  | { readonly kind: 'socket'; readonly path: string }

/** What is served. */
export interface Served {
  readonly journal: Journal
  readonly calls: RegistryCalls
}

/** @throws {ListenError} */
export async function serve(served: Served, address: ListenAddress): Promise<Server> {
  if (address.kind === 'socket') await clearSocket(address.path)
  const server = createServer(respond(served))
  await new Promise<void>((resolve, reject) => {
    server.once('listening', resolve)
    server.once('error', (error) => {
      const where = address.kind === 'socket' ? address.path : `${address.host}:${address.port}`
      reject(new ListenError(`cannot listen on ${where}: ${error.message}`, { cause: error }))
    })
    if (address.kind === 'socket') server.listen(address.path)
    else server.listen(address.port, address.host)
  })
  return server
}

function respond({ journal, calls }: Served): RequestListener {
  let metrics: Promise<Exposition> | undefined
  return ({ url, method }, response) => {
    const send = (status: number, type: string, body: string): void => {
      response.writeHead(status, { 'content-type': type }).end(method === 'HEAD' ? undefined : body)
    }
    if (url === '/healthz') return send(200, 'text/plain', 'flanneld is running')
    if (url === '/status') return send(200, 'application/json', JSON.stringify(journal.status))
    if (url === '/metrics') {
      metrics ??= import('./metrics.ts').then(({ exposeMetrics }) => exposeMetrics(journal, calls))
      void metrics.then(async (exposition) => send(200, exposition.contentType, await exposition.text()))
      return
    }
    if (url !== '/readyz') return send(404, 'text/plain', '404 page not found\n')
    if (journal.ready) return send(200, 'text/plain', 'flanneld is ready')
    return send(503, 'text/plain', ['flanneld is not ready yet', ...journal.problems].join('\n'))
  }
}

/** A socket that a killed agent left behind is removed, that of a running one is an error. */
async function clearSocket(path: string): Promise<void> {
  const answered = await new Promise<boolean>((resolve) => {
    const socket = connect(path)
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
  if (answered) throw new ListenError(`another agent is running: it answers on ${path}`)
  await rm(path, { force: true })
}
