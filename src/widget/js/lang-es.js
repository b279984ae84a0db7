/** Spanish. A string that is missing here is said in English. */
export default {
  title: 'Chat', open: 'Abrir el chat', close: 'Cerrar el chat', newChat: 'Nueva conversación', greeting: '¿En qué puedo ayudar?',
  placeholder: 'Escribe un mensaje', send: 'Enviar', stop: 'Detener', attach: 'Añadir archivos', remove: 'Quitar {name}', log: 'Conversación',
  assistant: 'Asistente', you: 'Tú', earlier: 'Mensajes anteriores', toEnd: 'Ir al final', chats: 'Tus conversaciones', untitled: 'Conversación',
  rename: 'Renombrar', save: 'Guardar', connecting: 'Conectando…', reconnecting: 'Conexión perdida. Reintentando…',
  signedOut: 'Tu sesión ha caducado. Inicia sesión de nuevo para seguir aquí.', refused: 'Este chat no está disponible en esta página.',
  working: 'En curso…', tool: 'En curso: {name}', toolDone: 'Hecho: {name}', toolFailed: 'No funcionó: {name}', reasoning: 'Reflexiones', sources: 'Fuentes',
  stopped: 'Detuviste esta respuesta.', retry: 'Reintentar', edit: 'Editar', notSent: 'Aún sin enviar. Se enviará al volver la conexión.',
  approval: 'Se necesita tu aprobación', approve: 'Aprobar', reject: 'Rechazar', approved: 'Lo aprobaste.', rejected: 'Lo rechazaste.',
  settled: 'Respondido, o ya no espera.', form: 'Algunos datos', submit: 'Enviar', skip: 'Omitir', submitted: 'Gracias.', skipped: 'Omitido.',
  name: 'Nombre', email: 'Correo', phone: 'Teléfono', other: 'Otro', optional: 'opcional', otp: 'Confirma que eres tú',
  otpSent: 'Se envió un código a {to}.', code: 'Código', verify: 'Verificar', verified: 'Verificado. Tu mensaje se envía de nuevo.', human: 'Una persona debería ver esto.',
  copy: 'Copiar', copied: 'Copiado', copyFailed: 'No se pudo copiar', unread: '{count} sin leer',
  AGENT_ERROR: 'La respuesta no se pudo terminar. Inténtalo de nuevo.', INTERNAL_ERROR: 'Algo salió mal. Inténtalo de nuevo.',
  RATE_LIMITED: 'Demasiados mensajes en poco tiempo. Espera un momento.', LLM_UNAVAILABLE: 'El asistente no puede responder ahora.',
};
