/** Logs: for people on a terminal, JSON lines otherwise; always on stderr, because stdout is for results. */

import pino, { type Logger } from 'pino'

export type { Logger }

/**
 * Synchronous on purpose: the last line before an exit is the one that is needed at 3 a.m. The text for people is made by
 * a library that is loaded for a terminal only.
 */
export async function createLogger(terminal: boolean, verbose: boolean): Promise<Logger> {
  const level = verbose ? 'debug' : 'info'
  const options = { base: null, level, timestamp: pino.stdTimeFunctions.isoTime }
  if (!terminal) {
    const formatters = { level: (level: string) => ({ level }) }
    return pino({ ...options, formatters }, pino.destination({ dest: 2, sync: true }))
  }
  const { default: pretty } = await import('pino-pretty')
  return pino(
    options,
    pretty({ destination: 2, sync: true, colorize: true, translateTime: 'SYS:HH:MM:ss.l' }),
  )
}
