/**
 * A packet to each of many addresses, evenly over a time; those that the kernel refused are sent again. Runs inside a
 * host's namespace, since a socket of Node's is where its process is.
 *
 *     node miss-sender.ts ADDRESSES MILLISECONDS
 *
 * The addresses are 10.0.1.1 and on, 250 in each /24. Says when it began: nanoseconds of CLOCK_MONOTONIC.
 */

import { createSocket } from 'node:dgram'
import { setTimeout as sleep } from 'node:timers/promises'
import { missed } from './misses.ts'

const [addresses = 0, milliseconds = 0] = process.argv.slice(2).map(Number)
/** A socket's buffer is charged for packets that wait for a neighbour: about 250 fill it. */
const SOCKETS = 32
const STEP = 5
const PORT = 9

const sockets = Array.from({ length: SOCKETS }, () => createSocket('udp4'))
const refused: number[] = []

function send(n: number): void {
  sockets[n % SOCKETS]?.send('', PORT, missed(n), (error) => {
    if (error !== null) refused.push(n)
  })
}

process.stdout.write(`${process.hrtime.bigint()}\n`)
const began = performance.now()
for (let sent = 0; sent < addresses; await sleep(STEP)) {
  const due = Math.min(addresses, Math.ceil((addresses * (performance.now() - began + STEP)) / milliseconds))
  for (; sent < due; sent++) send(sent)
}
for (let round = 0; round < 200 && refused.length > 0; round++) {
  await sleep(STEP)
  for (const n of refused.splice(0)) send(n)
}
for (const socket of sockets) socket.close()
